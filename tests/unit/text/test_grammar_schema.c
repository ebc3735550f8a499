/* JSON schema as constraint: texts by hand, and random walks held against a small validator of its own. */
#include "tests/unit/text/grammar_check.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "base/utf8.h"

/* ---- texts that must pass, or must not ---- */

struct texts {
    const char *schema, *good[7], *bad[7];
};

static void check_texts(const struct texts *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct pm_grammar *g = grammar_of(true, cases[i].schema);
        for (int k = 0; k < 7 && cases[i].good[k]; k++)
            if (!accepts(g, cases[i].good[k], strlen(cases[i].good[k])))
                fail_msg("%s refuses %s", cases[i].schema, cases[i].good[k]);
        for (int k = 0; k < 7 && cases[i].bad[k]; k++)
            if (accepts(g, cases[i].bad[k], strlen(cases[i].bad[k])))
                fail_msg("%s accepts %s", cases[i].schema, cases[i].bad[k]);
        pm_grammar_free(&g);
    }
}

static void test_scalars(void **state)
{
    (void)state;
    static const struct texts cases[] = {
        {"{\"type\":\"boolean\"}", {"true", "false"}, {"null", "True", "", " true", "true "}},
        {"{\"type\":\"null\"}", {"null"}, {"false", "nul"}},
        {"{\"type\":\"integer\"}",
         {"0", "-1", "999999999999999999", "-999999999999999999"},
         {"01", "-0", "1.0", "1e3", "+1", "1000000000000000000", "-"}},
        {"{\"type\":\"number\"}",
         {"0", "-0.5", "1e9", "12.25E-07", "3.0", "1e+1", "0.0000000000000001"},
         {".5", "5.", "1e", "1e333", "00.1", "0x1", "NaN"}},
        {"{\"type\":\"string\"}",
         {"\"\"", "\"a b\"", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"", "\"\\ud83d\\uDE00\"",
          "\"\xf0\x9f\x98\x80\""},
         {"\"", "\"\n\"", "\"\\x\"", "\"\\u00\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\\u0000\""}},
        {"{\"type\":\"string\"}",
         {"\"\x7f\""},
         {"\"\xff\"", "\"\xed\xa0\x80\"", "\"\xc3\"", "\"\\ud83d\\u0041\""}},
        {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
         {"\"ab\"", "\"\xc3\xa9\\n\\ud83d\\ude00\""},
         {"\"a\"", "\"abcd\"", "\"\""}},
        {"{\"type\":\"string\",\"minLength\":3}", {"\"abc\"", "\"abcdefgh\""}, {"\"ab\""}},
        {"{\"type\":[\"integer\",\"null\"],\"minimum\":3,\"maximum\":12}",
         {"3", "9", "10", "12", "null"},
         {"2", "13", "103", "-4"}},
        {"{\"type\":\"integer\",\"minimum\":-105,\"exclusiveMaximum\":20}",
         {"-105", "-99", "-1", "0", "19", "-100"},
         {"-106", "20", "-0", "-200", "100"}},
        {"{\"type\":\"integer\",\"exclusiveMinimum\":99}", {"100", "999"}, {"99", "0", "-100", "9"}},
        {"{\"type\":\"integer\",\"minimum\":5,\"exclusiveMinimum\":true}", {"6"}, {"5"}},
        {"{\"type\":\"integer\",\"minimum\":0.5,\"maximum\":1.5}", {"1"}, {"0", "2"}},
        {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
         {"0", "0.25", "1", "1.0", "1.00"},
         {"1.01", "-0.1", "2", "1.", "0."}},
        {"{\"type\":\"number\",\"exclusiveMinimum\":-2,\"maximum\":0}",
         {"-1.99", "0", "0.0", "-1", "-0.5"},
         {"-2", "-2.0", "0.1", "1"}},
        {"{\"type\":\"number\",\"exclusiveMaximum\":-3}", {"-3.5", "-4", "-10"}, {"-3", "-3.0", "-2", "3"}},
        {"{\"enum\":[\"a\",\"ab\",\"\\u00e9\\n\",1,0.1,null,[1,{\"k\":true}]]}",
         {"\"a\"", "\"ab\"", "\"\xc3\xa9\\n\"", "0.1", "[1,{\"k\": true}]", "[1, {\"k\":true}]"},
         {"\"b\"", "0.10", "\"abc\"", "[1]", "true"}},
        {"{\"type\":\"string\",\"enum\":[\"x\",3]}", {"\"x\""}, {"3"}},
        {"{\"const\":{\"a\":[]}}", {"{\"a\":[]}", "{\"a\": []}"}, {"{}", "{ \"a\":[]}"}},
        {"{\"const\":3,\"enum\":[3,4]}", {"3"}, {"4"}},
        {"{\"type\":\"string\",\"nullable\":true}", {"null", "\"\""}, {"1"}},
    };
    check_texts(cases, sizeof cases / sizeof *cases);
}

static void test_patterns_and_formats(void **state)
{
    (void)state;
    static const struct texts cases[] = {
        {"{\"pattern\":\"^[A-Z]{2}\\\\d+$\"}", {"\"AB1\""}, {"\"AB\"", "\"xAB1\"", "AB1"}},
        {"{\"type\":\"string\",\"pattern\":\"b\"}",
         {"\"b\"", "\"abc\"", "\"\\nb\\\"\""},
         {"\"\"", "\"ac\"", "\"\\u0062\""}},
        {"{\"type\":\"string\",\"pattern\":\"^a|b$\"}", {"\"ax\"", "\"xb\"", "\"a\""}, {"\"xa\"", "\"bx\""}},
        {"{\"type\":\"string\",\"pattern\":\"^[\\\"\\\\\\\\\\n\\u0001]$\"}",
         {"\"\\\"\"", "\"\\\\\"", "\"\\n\"", "\"\\u0001\""},
         {"\"\"\"", "\"\\\"", "\"n\"", "\"\\u0002\""}},
        {"{\"type\":\"string\",\"format\":\"date\"}",
         {"\"2024-02-29\"", "\"2000-02-29\"", "\"2023-12-31\"", "\"2023-04-30\""},
         {"\"2023-02-29\"", "\"1900-02-29\"", "\"2023-04-31\"", "\"2023-13-01\"", "\"2023-1-1\"",
          "\"2023-00-10\""}},
        {"{\"type\":\"string\",\"format\":\"date-time\"}",
         {"\"2024-02-29T23:59:59Z\"", "\"2024-01-01T00:00:00.125+02:00\""},
         {"\"2024-01-01\"", "\"2024-01-01T24:00:00Z\"", "\"2024-01-01T00:00:00\""}},
        {"{\"type\":\"string\",\"format\":\"time\"}", {"\"10:20:30Z\""}, {"\"10:20\"", "\"10:60:00Z\""}},
        {"{\"type\":\"string\",\"format\":\"uuid\"}",
         {"\"123e4567-e89b-12d3-a456-426614174000\""},
         {"\"123e4567e89b12d3a456426614174000\""}},
        {"{\"type\":\"string\",\"format\":\"email\"}",
         {"\"a.b+c@d-e.org\""},
         {"\"a@b\"", "\"@b.c\"", "\"a b@c.de\""}},
        {"{\"type\":\"string\",\"format\":\"ipv4\"}",
         {"\"127.0.0.255\""},
         {"\"1.2.3\"", "\"1.2.3.256\"", "\"01.2.3.4\""}},
    };
    check_texts(cases, sizeof cases / sizeof *cases);
}

static void test_arrays_and_objects(void **state)
{
    (void)state;
    static const struct texts cases[] = {
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}",
         {"[]", "[1]", "[1,2, 3]"},
         {"[1 ,2]", "[1,]", "[,1]", "[1,  2]", "[ 1]", "[\"a\"]"}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"minItems\":2,\"maxItems\":4}",
         {"[null,null]", "[null,null,null,null]"},
         {"[]", "[null]", "[null,null,null,null,null]"}},
        {"{\"items\":{\"type\":\"null\"},\"minItems\":3}",
         {"[null,null,null,null]"},
         {"[null,null]", "null"}},
        {"{\"type\":\"array\",\"maxItems\":0}", {"[]"}, {"[1]"}},
        {"{\"type\":\"array\",\"items\":false}", {"[]"}, {"[1]"}},
        {"{\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}",
         {"[1,\"a\"]"},
         {"[1]", "[1,\"a\",2]", "[]"}},
        {"{\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":\"null\"},\"minItems\":2,"
         "\"maxItems\":3}",
         {"[1,null]", "[1,null, null]"},
         {"[1]", "[1,null,null,null]", "[null,null]"}},
        {"{\"items\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}", {"[1,\"a\"]"}, {"[1]"}},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"null\"},\"c\":"
         "true},"
         "\"required\":[\"b\"]}",
         {"{\"b\":null}", "{\"a\":1,\"b\":null}", "{\"b\": null, \"c\": [{}]}",
          "{\"a\":1, \"b\":null,\"c\":\"x\"}"},
         {"{}", "{\"a\":1}", "{\"b\":null,\"a\":1}", "{\"b\":null,\"d\":1}", "{\"b\":null,\"b\":null}",
          "{\"b\":null,}"}},
        {"{\"properties\":{\"a\":true,\"b\":true}}",
         {"{}", "{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"b\":2}"},
         {"{\"c\":1}", "3"}},
        {"{\"type\":\"object\"}", {"{}", "{\"a\":{\"b\":[1,null]}}"}, {"[]", "{a:1}"}},
        {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}",
         {"{}", "{\"x\":1,\"y\":2}"},
         {"{\"x\":\"1\"}"}},
        {"{\"type\":\"object\",\"additionalProperties\":false}", {"{}"}, {"{\"a\":1}"}},
        {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"null\"},\"minProperties\":1,"
         "\"maxProperties\":2}",
         {"{\"x\":null}", "{\"x\":null, \"y\":null}"},
         {"{}", "{\"x\":null,\"y\":null,\"z\":null}"}},
        {"{\"properties\":{\"ab\":{\"type\":\"integer\"},\"a\":{\"type\":\"integer\"},\"\xc3\xa9\":{\"type\":"
         "\"null\"}},"
         "\"additionalProperties\":{\"type\":\"boolean\"}}",
         {"{\"ab\":1,\"abc\":true,\"\":false}", "{\"b\":true}", "{\"a\":1,\"aa\":true}",
          "{\"\xc3\xa8\":true}", "{\"A\":true}"},
         {"{\"ab\":true}", "{\"x\":true,\"a\":true}", "{\"\\u0061\":true}", "{\"\xc3\xa9\":true}",
          "{\"x\":true,\"ab\":1}"}},
        {"{\"properties\":{\"a\":false,\"b\":true}}", {"{}", "{\"b\":1}"}, {"{\"a\":1}"}},
        {"{\"type\":\"object\",\"required\":[\"x\",\"x\"]}",
         {"{\"x\":1}", "{\"x\":1,\"y\":2}"},
         {"{}", "{\"y\":2}"}},
        {"{\"properties\":{\"q\\\"\\n\":{\"type\":\"null\"}},\"required\":[\"q\\\"\\n\"]}",
         {"{\"q\\\"\\n\":null}"},
         {"{}"}},
    };
    check_texts(cases, sizeof cases / sizeof *cases);
}

static void test_combinations(void **state)
{
    (void)state;
    static const struct texts cases[] = {
        {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\",\"maxLength\":1},{\"const\":null}]}",
         {"1", "\"a\"", "null"},
         {"\"ab\"", "1.5", "true"}},
        {"{\"anyOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}],\"type\":\"object\",\"properties\":{"
         "\"a\":{\"type\":"
         "\"null\"},\"b\":{\"type\":\"null\"}}}",
         {"{\"a\":null}", "{\"b\":null}", "{\"a\":null,\"b\":null}"},
         {"{}", "{\"c\":null}"}},
        {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"a\"},\"n\":{\"type\":"
         "\"integer\"}},\"required\":["
         "\"k\"]},{\"type\":\"object\",\"properties\":{\"k\":{\"enum\":[\"b\",\"c\"]}},\"required\":[\"k\"]},"
         "{\"type\":"
         "\"array\"}]}",
         {"{\"k\":\"a\",\"n\":1}", "{\"k\":\"c\"}", "[]"},
         {"{\"k\":\"b\",\"n\":1}", "{}", "{\"k\":\"d\"}"}},
        {"{\"allOf\":[{\"$ref\":\"#/$defs/"
         "base\"},{\"properties\":{\"b\":{\"type\":\"integer\",\"maximum\":4},\"a\":{\"minimum\":"
         "3}},\"required\":[\"b\"]}],\"$defs\":{\"base\":{\"type\":\"object\",\"properties\":{\"a\":{"
         "\"type\":\"integer\","
         "\"maximum\":5}},\"required\":[\"a\"]}}}",
         {"{\"a\":3,\"b\":4}", "{\"a\":5,\"b\":-7}"},
         {"{\"a\":2,\"b\":4}", "{\"a\":6,\"b\":4}", "{\"a\":3,\"b\":5}", "{\"a\":3}"}},
        {"{\"allOf\":[{\"properties\":{\"a\":{\"type\":\"integer\"}},\"additionalProperties\":false},{"
         "\"properties\":{\"b\":{"
         "\"type\":\"integer\"}}}]}",
         {"{}", "{\"a\":1}"},
         {"{\"b\":1}"}},
        {"{\"allOf\":[{\"enum\":[1,2,\"x\"]},{\"enum\":[2,\"x\",3]},{\"type\":\"integer\"}]}",
         {"2"},
         {"1", "3", "\"x\""}},
        {"{\"allOf\":[{\"anyOf\":[{\"minimum\":3},{\"maximum\":-3}]},{\"anyOf\":[{\"maximum\":5},{"
         "\"minimum\":9}]}],\"type\":"
         "\"integer\"}",
         {"3", "5", "9", "-3", "-100"},
         {"0", "6", "-2"}},
        {"{\"$ref\":\"#/definitions/"
         "n\",\"minimum\":2,\"definitions\":{\"n\":{\"type\":\"integer\",\"maximum\":3}}}",
         {"2", "3"},
         {"1", "4"}},
        {"{\"$ref\":\"#/$defs/a%20b~1~0/1\",\"$defs\":{\"a b/~\":[false,{\"type\":\"null\"}]}}",
         {"null"},
         {"1"}},
        {"{\"$defs\":{\"tree\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":{"
         "\"anyOf\":[{\"$ref\":"
         "\"#/$defs/tree\"},{\"type\":\"null\"}]}},\"required\":[\"v\",\"next\"]}},\"$ref\":\"#/$defs/"
         "tree\"}",
         {"{\"v\":1,\"next\":null}", "{\"v\":1,\"next\":{\"v\":2,\"next\":null}}"},
         {"{\"v\":1}", "{\"v\":1,\"next\":{}}"}},
        {"{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}", {"[]", "[[],[[]]]"}, {"[1]"}},
        {"true", {"1", "[1,{\"a\":[]}]", "\"x\""}, {"", "[1", "x"}},
        {"{\"title\":\"t\",\"description\":\"d\",\"default\":3,\"$schema\":\"s\",\"examples\":[1]}",
         {"1", "{}"},
         {"x"}},
    };
    check_texts(cases, sizeof cases / sizeof *cases);
}

/* ---- depth ---- */

static void test_depth_is_bounded(void **state)
{
    (void)state;
    struct pm_grammar *g = grammar_of(true, "{}");
    struct pm_grammar_state *s = pm_grammar_begin(g);
    int depth = 0;
    while (depth < 200 && pm_grammar_accept(s, (const uint8_t *)"[", 1))
        depth++;
    assert_in_range(depth, 60, 70);
    assert_false(pm_grammar_accept(s, (const uint8_t *)"{", 1));
    assert_false(pm_grammar_accept(s, (const uint8_t *)"1", 1)); /* an item would be one level more */
    for (int i = 0; i < depth; i++) {
        assert_false(pm_grammar_is_complete(s));
        assert_true(pm_grammar_accept(s, (const uint8_t *)"]", 1));
    }
    assert_true(pm_grammar_is_finished(s));
    pm_grammar_end(&s);
    pm_grammar_free(&g);
}

/* A level that cannot be finished any more is not begun: here one takes three entries of the stack. */
static void test_depth_is_no_trap(void **state)
{
    (void)state;
    static const char level[] = "{\"n\":{\"m\":[";
    struct vocabulary v;
    struct pm_grammar *g = grammar_of(
        true,
        "{\"$defs\":{\"a\":{\"properties\":{\"n\":{\"anyOf\":[{\"$ref\":\"#/$defs/"
        "b\"},{\"type\":\"null\"}]}},"
        "\"required\":[\"n\"]},\"b\":{\"properties\":{\"m\":{\"$ref\":\"#/$defs/c\"}},\"required\":[\"m\"]},"
        "\"c\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/a\"},\"minItems\":2,\"maxItems\":3}},"
        "\"$ref\":\"#/$defs/a\"}");
    struct pm_grammar_state *s = pm_grammar_begin(g);
    uint32_t mask[MASK_WORDS];
    int taken = 0;
    vocabulary_open(&v);
    while (taken < 5000 && pm_grammar_accept(s, (const uint8_t *)&level[taken % 11], 1)) {
        bool is_any = false;
        mask_of(s, &v, mask);
        for (int i = 0; i < MASK_WORDS; i++)
            is_any = is_any || mask[i];
        assert_true(is_any);
        taken++;
    }
    assert_in_range(taken, 15 * 11, 65 * 11);
    assert_int_equal(taken % 11, 5); /* stopped where null is the other choice */
    assert_true(pm_grammar_accept(s, (const uint8_t *)"null}", 5));
    pm_grammar_end(&s);
    pm_grammar_free(&g);
    pm_token_trie_free(&v.trie);
}

/* ---- walks, against a validator ---- */

static bool is_type(const json_t *v, const char *name)
{
    static const char *const names[] = {"object", "array",   "string",  "integer",
                                        "number", "boolean", "boolean", "null"};
    return strcmp(names[json_typeof(v)], name) == 0 || (json_is_integer(v) && strcmp(name, "number") == 0);
}

static size_t length_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((uint8_t)*text & 0xc0) != 0x80;
    return n;
}

static double bound_of(const json_t *schema, const char *key, double otherwise)
{
    return json_object_get(schema, key) ? json_number_value(json_object_get(schema, key)) : otherwise;
}

static bool valid(const json_t *root, const json_t *schema, const json_t *v);

static bool valid_object(const json_t *root, const json_t *schema, const json_t *v)
{
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *others = json_object_get(schema, "additionalProperties");
    json_t *value;
    const char *key;
    size_t i;
    json_array_foreach(json_object_get(schema, "required"), i, value)
    {
        if (json_object_get(v, json_string_value(value)) == NULL)
            return false;
    }
    json_object_foreach((json_t *)v, key, value)
    {
        const json_t *rule = json_object_get(properties, key) ? json_object_get(properties, key) : others;
        if (rule ? !valid(root, rule, value) : properties != NULL)
            return false;
    }
    return true;
}

static bool valid(const json_t *root, const json_t *schema, const json_t *v)
{
    const json_t *part;
    json_t *value;
    size_t i;
    bool is_any = false;
    if (json_is_boolean(schema))
        return json_is_true(schema);
    if ((part = json_object_get(schema, "$ref"))) /* "#" and "#/$defs/NAME" here */
        return valid(root,
                     strlen(json_string_value(part)) < 8
                         ? root
                         : json_object_get(json_object_get(root, "$defs"), json_string_value(part) + 8),
                     v);
    if ((part = json_object_get(schema, "anyOf"))) {
        json_array_foreach((json_t *)part, i, value) is_any = is_any || valid(root, value, v);
        if (!is_any)
            return false;
    }
    if ((part = json_object_get(schema, "enum"))) {
        json_array_foreach((json_t *)part, i, value) is_any = is_any || json_equal(value, v);
        if (!is_any)
            return false;
    }
    if ((part = json_object_get(schema, "type")) && !is_type(v, json_string_value(part)))
        return false;
    if (json_is_number(v) && !(json_number_value(v) >= bound_of(schema, "minimum", -INFINITY) &&
                               json_number_value(v) <= bound_of(schema, "maximum", INFINITY)))
        return false;
    if (json_is_string(v) &&
        !((double)length_of(json_string_value(v)) >= bound_of(schema, "minLength", 0) &&
          (double)length_of(json_string_value(v)) <= bound_of(schema, "maxLength", INFINITY)))
        return false;
    if (json_is_array(v)) {
        if (!((double)json_array_size(v) >= bound_of(schema, "minItems", 0) &&
              (double)json_array_size(v) <= bound_of(schema, "maxItems", INFINITY)))
            return false;
        json_array_foreach((json_t *)v, i, value) if ((part = json_object_get(schema, "items")) &&
                                                      !valid(root, part, value)) return false;
    }
    return !json_is_object(v) || valid_object(root, schema, v);
}

static void test_walks_are_valid(void **state)
{
    (void)state;
    static const char *const schemas[] = {
        "{}",
        "{\"type\":\"object\"}",
        "{\"type\":\"string\",\"maxLength\":9}",
        "{\"type\":\"number\",\"minimum\":-3,\"maximum\":12}",
        "{\"type\":\"integer\",\"minimum\":-1234,\"maximum\":98765}",
        "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
        "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"string\"},\"v\":{\"type\":\"number\"},\"t\":{"
        "\"type\":\"array\","
        "\"items\":{\"enum\":[\"x\",\"yy\",3,null]}}},\"required\":[\"v\"]}",
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"additionalProperties\":{"
        "\"type\":\"string\"},"
        "\"required\":[\"a\"]}",
        "{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"boolean\"},\"kids\":{"
        "\"type\":\"array\","
        "\"items\":{\"$ref\":\"#/$defs/n\"}}},\"required\":[\"v\",\"kids\"]}},\"$ref\":\"#/$defs/n\"}",
        "{\"type\":\"array\",\"items\":{\"anyOf\":[{\"type\":\"integer\",\"minimum\":7},{\"$ref\":\"#\"},{"
        "\"type\":\"string\","
        "\"minLength\":2,\"maxLength\":2}]}}",
    };
    struct vocabulary v;
    struct pm_buf text = {0};
    uint32_t r = 21;
    vocabulary_open(&v);
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        struct pm_grammar *g = grammar_of(true, schemas[i]);
        json_t *root = json_loads(schemas[i], 0, NULL);
        int ended = 0;
        assert_non_null(root);
        for (int k = 0; k < 60; k++) {
            if (!walk(g, &v, &r, 40, &text))
                continue;
            ended++;
            json_t *value = json_loadb((const char *)text.data, text.size, JSON_DECODE_ANY, NULL);
            if (value == NULL || !valid(root, root, value))
                fail_msg("%s: the walk ended in %s", schemas[i], (const char *)text.data);
            json_decref(value);
        }
        assert_true(ended > 30);
        json_decref(root);
        pm_grammar_free(&g);
    }
    pm_buf_free(&text);
    pm_token_trie_free(&v.trie);
}

/* ---- what is refused ---- */

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *schema;
        int code;
        const char *says;
    } cases[] = {
        {"{", PM_EFORMAT, "not JSON"},
        {"{\"a\":1,\"a\":2}", PM_EFORMAT, "not JSON"},
        {"3", PM_EFORMAT, "schema #:"},
        {"{\"type\":\"text\"}", PM_EFORMAT, "type"},
        {"{\"properties\":{\"a\":{\"items\":{\"not\":{}}}}}", PM_EUNSUPPORTED,
         "#/properties/a/items: the keyword \"not\""},
        {"{\"if\":{}}", PM_EUNSUPPORTED, "\"if\""},
        {"{\"patternProperties\":{}}", PM_EUNSUPPORTED, "patternProperties"},
        {"{\"type\":\"array\",\"uniqueItems\":true}", PM_EUNSUPPORTED, "uniqueItems"},
        {"{\"type\":\"number\",\"multipleOf\":3}", PM_EUNSUPPORTED, "multipleOf"},
        {"{\"type\":\"number\",\"minimum\":0.5}", PM_EUNSUPPORTED, "whole bounds"},
        {"{\"type\":\"string\",\"format\":\"iri\"}", PM_EUNSUPPORTED, "\"iri\""},
        {"{\"type\":\"string\",\"pattern\":\"a\",\"maxLength\":3}", PM_EUNSUPPORTED, "maxLength"},
        {"{\"anyOf\":[true,{\"type\":\"string\",\"pattern\":\"a(\"}]}", PM_EFORMAT,
         "#/anyOf/1: pattern: a group"},
        {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", PM_EUNSUPPORTED, "lookaround"},
        {"{\"$ref\":\"other.json\"}", PM_EUNSUPPORTED, "other.json"},
        {"{\"$ref\":\"#/$defs/x\"}", PM_EFORMAT, "names nothing"},
        {"{\"$ref\":\"#/%zz\"}", PM_EFORMAT, "names nothing"},
        {"{\"$ref\":\"#\"}", PM_EINVAL, "no text"},
        {"{\"$ref\":\"#\",\"type\":\"string\"}", PM_ELIMIT, "100"},
        {"{\"type\":\"array\",\"items\":{\"$ref\":\"#\"},\"minItems\":1}", PM_EINVAL, "no text"},
        {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", PM_EUNSUPPORTED,
         "alternatives 0 and 1"},
        {"{\"oneOf\":[{\"type\":\"object\"},{\"type\":\"object\"}]}", PM_EUNSUPPORTED, "may both match"},
        {"{\"allOf\":[{\"pattern\":\"a\"},{\"pattern\":\"b\"}]}", PM_EUNSUPPORTED, "\"pattern\""},
        {"{\"allOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}", PM_EINVAL, "no text"},
        {"{\"enum\":[]}", PM_EINVAL, "no text"},
        {"{\"enum\":[\"a\"],\"minLength\":3}", PM_EUNSUPPORTED, "beside enum"},
        {"{\"type\":\"array\",\"minItems\":-1}", PM_EFORMAT, "minItems"},
        {"{\"type\":\"array\",\"minItems\":1e9}", PM_ELIMIT, "10000"},
        {"{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}", PM_EINVAL, "maxItems"},
        {"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", PM_EINVAL, "maxLength"},
        {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", PM_EINVAL, "no text"},
        {"{\"type\":\"object\",\"required\":[\"a\"],\"additionalProperties\":false}", PM_EINVAL,
         "\"a\" is required"},
        {"{\"properties\":{\"a\":{}},\"minProperties\":1}", PM_EUNSUPPORTED, "minProperties"},
        {"{\"required\":[3]}", PM_EFORMAT, "required"},
        {"false", PM_EINVAL, "no text"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pm_grammar *g = NULL;
        struct pm_error err = {0};
        int rc = pm_grammar_json_schema(cases[i].schema, &g, &err);
        if (rc != cases[i].code || strstr(err.text, cases[i].says) == NULL)
            fail_msg("%s: %d \"%s\"", cases[i].schema, rc, err.text);
        assert_null(g);
    }
}

/* Small schemas that stand for very much. */
static void test_bounds(void **state)
{
    (void)state;
    struct pm_buf s = {0};
    struct pm_grammar *g = NULL;
    struct pm_error err;
    for (int i = 0; i < 150; i++)
        pm_buf_text(&s, "{\"type\":\"array\",\"items\":");
    pm_buf_text(&s, "{}");
    for (int i = 0; i < 150; i++)
        pm_buf_text(&s, "}");
    assert_int_equal(pm_grammar_json_schema((const char *)s.data, &g, &err), PM_ELIMIT);
    pm_buf_clear(&s);
    for (int i = 0; i < 20; i++) /* 2^20 combinations */
        pm_buf_printf(&s, "%s{\"anyOf\":[{\"minimum\":%d},{\"maximum\":%d}]}",
                      i ? "," : "{\"type\":\"integer\",\"allOf\":[", i, i - 40);
    pm_buf_text(&s, "]}");
    assert_int_equal(pm_grammar_json_schema((const char *)s.data, &g, &err), PM_ELIMIT);
    pm_buf_clear(&s);
    pm_buf_text(&s, "{\"$defs\":{\"a0\":{\"type\":\"null\"}");
    for (int i = 1; i < 60; i++) /* 2^60 items, written by reference */
        pm_buf_printf(&s,
                      ",\"a%d\":{\"prefixItems\":[{\"$ref\":\"#/$defs/a%d\"},{\"$ref\":\"#/$defs/a%d\"}]}", i,
                      i - 1, i - 1);
    pm_buf_text(&s, "},\"$ref\":\"#/$defs/a59\"}");
    assert_int_equal(pm_grammar_json_schema((const char *)s.data, &g, &err), 0);
    assert_true(!accepts(g, "[[", 2));
    pm_grammar_free(&g);
    pm_buf_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_patterns_and_formats),
        cmocka_unit_test(test_arrays_and_objects),
        cmocka_unit_test(test_combinations),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_depth_is_no_trap),
        cmocka_unit_test(test_walks_are_valid),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
