/* A strict reader of the Prometheus text format 0.0.4, for tests: fails at whatever a scraper could stumble
 * over. */
#ifndef PM_TESTS_BROKER_EXPOSITION_CHECK_H
#define PM_TESTS_BROKER_EXPOSITION_CHECK_H

#include <stddef.h>

/* Reads a whole page. Each family has one HELP and one TYPE before its samples, which stand together; names
 * and labels are valid and escaped; no series comes twice; histograms grow from bucket to bucket and end with
 * +Inf, which is the count. Returns the number of samples. */
size_t exposition_check(const char *text);
/* The value of a series, spelt as on the page: exposition_value(text, "x{a=\"b\"}"). Fails when it is not
 * there. */
double exposition_value(const char *text, const char *series);

#endif
