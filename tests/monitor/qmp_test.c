/* SPDX-License-Identifier: MIT */
/*
 * QMP sessions: framing, negotiation, checks, errors and events, byte by byte as QEMU 7.2 answers
 * where ferry says the same. The commands run against a VM made of a few variables.
 */
#include "kit.h"

#include "config.h"
#include "monitor/qmp.h"

/* ---- a VM ----------------------------------------------------------------------------------- */

static struct {
    bool running, has_button;
    unsigned resets, quits;
    const char *name, *uuid;
} vm;

static const char *vm_status(void)
{
    return vm.running ? "running" : "paused";
}

static bool vm_is_running(void)
{
    return vm.running;
}

static bool vm_stop(struct error **errp)
{
    vm.running = false;
    return true;
}

static bool vm_cont(struct error **errp)
{
    if (vm.resets) {
        error_set(errp, "Resetting the Virtual Machine is required");
        return false;
    }
    vm.running = true;
    return true;
}

static void vm_reset(void)
{
    vm.resets++;
}

static bool vm_powerdown(struct error **errp)
{
    if (!vm.has_button) {
        error_set_class(errp, ERROR_DEVICE_NOT_ACTIVE, "no button");
    }
    return vm.has_button;
}

static void vm_quit(void)
{
    vm.quits++;
}

static const char *vm_name(void)
{
    return vm.name;
}

static const char *vm_uuid(void)
{
    return vm.uuid;
}

static const struct monitor_vm_ops ops = {
    .status = vm_status,
    .is_running = vm_is_running,
    .stop = vm_stop,
    .cont = vm_cont,
    .system_reset = vm_reset,
    .system_powerdown = vm_powerdown,
    .quit = vm_quit,
    .name = vm_name,
    .uuid = vm_uuid,
};

/* ---- a client ------------------------------------------------------------------------------- */

#define GREETING                                                                                   \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}, \"package\": " \
    "\"ferry " FERRY_VERSION "\"}, \"capabilities\": []}}\r\n"
#define CAPABILITIES "{\"execute\": \"qmp_capabilities\"}"
#define DONE         "{\"return\": {}}\r\n"
#define RUNNING                                                                                    \
    "{\"return\": {\"status\": \"running\", \"singlestep\": false, \"running\": true}}\r\n"

struct client {
    struct peer peer;
    struct qmp_session *session;
};

static void say(struct client *client, const char *text)
{
    qmp_session_input(client->session, text, strlen(text));
}

static void expect(struct client *client, const char *reply)
{
    autofree char *text = peer_take(&client->peer);

    assert_string_equal(text, reply);
}

/* A request and its whole answer. */
static void ask(struct client *client, const char *request, const char *reply)
{
    say(client, request);
    say(client, "\n");
    expect(client, reply);
}

static void connect(struct client *client, bool pretty)
{
    *client = (struct client){0};
    client->session = qmp_session_new(pretty, peer_output, &client->peer);
    qmp_session_open(client->session);
}

static void disconnect(struct client *client)
{
    qmp_session_free(client->session);
    free(peer_take(&client->peer));
}

static int setup(void **state)
{
    struct client *client = xnew(struct client);

    memset(&vm, 0, sizeof(vm));
    vm.running = true;
    monitor_set_vm_ops(&ops);
    connect(client, false);
    expect(client, GREETING);
    ask(client, CAPABILITIES, DONE);
    *state = client;
    return 0;
}

static int teardown(void **state)
{
    disconnect(*state);
    free(*state);
    return 0;
}

static char *error_reply(const char *class, const char *text)
{
    return xasprintf("{\"error\": {\"class\": \"%s\", \"desc\": \"%s\"}}\r\n", class, text);
}

static void ask_for_error(struct client *client, const char *request, const char *class,
                          const char *text)
{
    autofree char *reply = error_reply(class, text);

    ask(client, request, reply);
}

/* ---- negotiation ---------------------------------------------------------------------------- */

static void test_negotiation(void **state)
{
    struct client client;

    connect(&client, false);
    expect(&client, GREETING);
    ask_for_error(&client, "{\"execute\": \"query-status\"}", "CommandNotFound",
                  "Expecting capabilities negotiation with 'qmp_capabilities'");
    /* Unknown here or there. */
    ask_for_error(&client, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": 1}}",
                  "GenericError", "Invalid parameter type for 'enable', expected: array");
    ask_for_error(&client,
                  "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"oob\"]}}",
                  "GenericError", "this server has no capabilities to enable");
    ask_for_error(&client, "{\"execute\": \"query-status\"}", "CommandNotFound",
                  "Expecting capabilities negotiation with 'qmp_capabilities'");
    ask(&client, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": []}}", DONE);
    ask(&client, "{\"execute\": \"query-status\"}", RUNNING);
    ask_for_error(&client, CAPABILITIES, "CommandNotFound",
                  "Capabilities negotiation is already complete, command ignored");

    /* The next client begins anew, and so does its input. */
    say(&client, "{\"execute\": \"quit");
    qmp_session_close(client.session);
    say(&client, "\"}{\"execute\": \"quit\"}");
    expect(&client, "");
    qmp_session_open(client.session);
    expect(&client, GREETING);
    ask_for_error(&client, "{\"execute\": \"quit\"}", "CommandNotFound",
                  "Expecting capabilities negotiation with 'qmp_capabilities'");
    assert_int_equal(vm.quits, 0);
    disconnect(&client);
}

/* ---- framing -------------------------------------------------------------------------------- */

static void test_pieces(void **state)
{
    static const char request[] = "{\"execute\":\r\n\t\"query-status\"  ,\"id\":\"a\\\"}]{[\\\\\"}";
    static const char reply[] = "{\"return\": {\"status\": \"running\", \"singlestep\": false, "
                                "\"running\": true}, \"id\": \"a\\\"}]{[\\\\\"}\r\n";
    struct client *client = *state;

    for (size_t cut = 1; cut < sizeof(request) - 1; cut++) {
        qmp_session_input(client->session, request, cut);
        expect(client, "");
        qmp_session_input(client->session, request + cut, sizeof(request) - 1 - cut);
        expect(client, reply);
    }
    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        qmp_session_input(client->session, request + i, 1);
    }
    expect(client, reply);
}

static void test_several_at_once(void **state)
{
    say(*state,
        "{\"execute\":\"query-status\"}{\"execute\":\"stop\"} \n\n{\"execute\":\"cont\"}\n");
    expect(*state, RUNNING DONE DONE);
}

static void test_id(void **state)
{
    static const char *const ids[] = {"0",
                                      "-1",
                                      "9223372036854775807",
                                      "null",
                                      "true",
                                      "[]",
                                      "{\"a\": [1, {\"b\": \"\"}]}",
                                      "\"\"",
                                      "\"\\u00E9\\u0001\""};

    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        autofree char *good = xasprintf("{\"execute\": \"stop\", \"id\": %s}", ids[i]);
        autofree char *bad = xasprintf("{\"execute\": \"nix\", \"id\": %s}", ids[i]);
        autofree char *good_reply = xasprintf("{\"return\": {}, \"id\": %s}\r\n", ids[i]);
        autofree char *bad_reply =
            xasprintf("{\"id\": %s, \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The "
                      "command nix has not been found\"}}\r\n",
                      ids[i]);

        ask(*state, good, good_reply);
        ask(*state, bad, bad_reply);
    }
}

static void test_pretty(void **state)
{
    struct client client;

    connect(&client, true);
    free(peer_take(&client.peer));
    ask(&client, CAPABILITIES, "{\r\n    \"return\": {}\r\n}\r\n");
    disconnect(&client);
}

/* ---- garbage -------------------------------------------------------------------------------- */

static void test_malformed_requests(void **state)
{
    static const struct {
        const char *request, *error;
    } cases[] = {
        {"{}", "QMP input lacks member 'execute'"},
        {"[]", "QMP input must be a JSON object"},
        {"5", "QMP input must be a JSON object"},
        {"\"text\"", "QMP input must be a JSON object"},
        {"null", "QMP input must be a JSON object"},
        {"{\"execute\": 5}", "QMP input member 'execute' must be a string"},
        {"{\"execute\": null}", "QMP input member 'execute' must be a string"},
        {"{\"exec\": \"stop\"}", "QMP input member 'exec' is unexpected"},
        {"{\"exec-oob\": \"stop\"}", "QMP input member 'exec-oob' is unexpected"},
        {"{\"execute\": \"stop\", \"control\": {}}", "QMP input member 'control' is unexpected"},
        {"{\"execute\": \"stop\", \"arguments\": []}",
         "QMP input member 'arguments' must be an object"},
        {"{\"execute\": \"stop\", \"arguments\": {\"x\": 1}}", "Parameter 'x' is unexpected"},
        {"{\"execute\": \"qom-list-types\", \"arguments\": {\"implements\": 1}}",
         "Invalid parameter type for 'implements', expected: string"},
        {"{\"execute\": \"qom-list-types\", \"arguments\": {\"abstract\": 1}}",
         "Invalid parameter type for 'abstract', expected: boolean"},
        {"{\"execute\": \"device-list-properties\"}", "Parameter 'typename' is missing"},
        {"{\"execute\": \"device-list-properties\", \"arguments\": {\"typename\": null}}",
         "Invalid parameter type for 'typename', expected: string"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        ask_for_error(*state, cases[i].request, "GenericError", cases[i].error);
    }
    assert_true(vm.running);
}

/* Whatever comes, it costs one error, and the next command is understood. */
static void test_recovery(void **state)
{
    static const char *const garbage[] = {
        "nonsense\n",
        "tru\n",
        "}",
        "]",
        "\xff",
        "{\"execute\": \"st\n",
        "{\"execute\": \"stop\xff",
        "{\"execute\": \"stop\"]\n",
        "{\"execute\" \"stop\"}",
        "{'execute': 'stop'}",
        "{\"execute\": \"stop\",}",
        "{\"execute\": \"stop\", \"execute\": \"stop\"}",
        "[}\n",
        "{\"execute\": \"\\q\"}",
        "{\"execute\": \"\\u12\"}",
        "{\"execute\": \"\\ud800\"}",
        "{\"execute\": \"st\\u0000op\"}",
        "{\"execute\": \"\xc3\x28\"}",
        "\x01",
        "\xc3",
        "{\"id\": 1e999}",
        "{\"id\": 99999999999999999999}",
        "{\"id\": 01}",
    };
    struct client *client = *state;

    for (size_t i = 0; i < ARRAY_SIZE(garbage); i++) {
        autofree char *text = NULL;
        const char *first_end;

        say(client, garbage[i]);
        say(client, "{\"execute\": \"query-status\"}\n");
        text = peer_take(&client->peer);
        first_end = strstr(text, "\r\n");
        if (strncmp(text, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON ", 47) ||
            !first_end || strcmp(first_end + 2, RUNNING)) {
            fail_msg("garbage %zu: %s", i, text);
        }
    }
    assert_true(vm.running);
}

/* A NUL is no string's end here. */
static void test_nul_byte(void **state)
{
    struct client *client = *state;

    qmp_session_input(client->session, "\0", 1);
    say(client, "{\"execute\": \"query-status\"}");
    expect(client, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error, stray "
                   "byte 0x00\"}}\r\n" RUNNING);
}

static void test_nesting(void **state)
{
    struct client *client = *state;
    autofree char *deep = xmalloc(5000);

    memset(deep, '[', 4999);
    deep[4999] = 0;
    ask_for_error(client, deep, "GenericError", "JSON nesting depth limit exceeded");
    ask(client, "{\"execute\": \"query-status\"}", RUNNING);
    /* Brackets of the wrong kind are left to the parser. */
    memset(deep, '[', 500);
    memset(deep + 500, '}', 500);
    deep[1000] = 0;
    say(client, deep);
    free(peer_take(&client->peer));
    ask(client, "{\"execute\": \"query-status\"}", RUNNING);
}

static void test_too_long(void **state)
{
    struct client *client = *state;
    autofree char *text = xmalloc(70000);
    autofree char *reply = NULL;

    memset(text, 'x', 69999);
    text[69999] = 0;
    say(client, "{\"execute\": \"");
    for (unsigned i = 0; i < 40; i++) { /* 2.8 million bytes */
        say(client, text);
    }
    reply = peer_take(&client->peer);
    assert_string_equal(reply, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse "
                               "error, the command is too long\"}}\r\n");
    /* It lasts to the end of the line. */
    ask(client, "\"}", "");
    ask(client, "{\"execute\": \"query-status\"}", RUNNING);
    /* White space is none. */
    memset(text, ' ', 69999);
    for (unsigned i = 0; i < 40; i++) {
        say(client, text);
    }
    ask(client, "{\"execute\": \"query-status\"}", RUNNING);
}

/* Random bytes of JSON's alphabet: no crash, no hang, and a way back. */
static void test_noise(void **state)
{
    static const char alphabet[] = "{}[]\":,\\ \n\t019.-truefalsn\xff\xc3\x01qe";
    struct client *client = *state;
    uint64_t seed = 88172645463325252u;

    for (unsigned round = 0; round < 300; round++) {
        char noise[200];

        for (size_t i = 0; i < sizeof(noise); i++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            noise[i] = alphabet[seed % (sizeof(alphabet) - 1)];
        }
        qmp_session_input(client->session, noise, sizeof(noise));
        free(peer_take(&client->peer));
        /* 0xff begins anew, whatever is open; it costs one error. */
        say(client, "\xff");
        free(peer_take(&client->peer));
        ask(client, "{\"execute\": \"query-status\"}", RUNNING);
    }
}

/* ---- commands ------------------------------------------------------------------------------- */

static void test_commands(void **state)
{
    struct client *client = *state;

    ask(client, "{\"execute\": \"stop\", \"arguments\": {}}", DONE);
    ask(client, "{\"execute\": \"query-status\"}",
        "{\"return\": {\"status\": \"paused\", \"singlestep\": false, \"running\": false}}\r\n");
    ask(client, "{\"execute\": \"cont\"}", DONE);
    ask(client, "{\"execute\": \"query-version\"}",
        "{\"return\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}, \"package\": "
        "\"ferry " FERRY_VERSION "\"}}\r\n");
    ask(client, "{\"execute\": \"query-name\"}", DONE);
    vm.name = "n\"1";
    ask(client, "{\"execute\": \"query-name\"}", "{\"return\": {\"name\": \"n\\\"1\"}}\r\n");
    ask(client, "{\"execute\": \"query-target\"}", "{\"return\": {\"arch\": \"x86_64\"}}\r\n");
    ask(client, "{\"execute\": \"query-uuid\"}",
        "{\"return\": {\"UUID\": \"00000000-0000-0000-0000-000000000000\"}}\r\n");
    ask(client, "{\"execute\": \"query-memory-size-summary\"}",
        "{\"return\": {\"base-memory\": 0, \"plugged-memory\": 0}}\r\n");
    ask(client, "{\"execute\": \"query-iothreads\"}", "{\"return\": []}\r\n");
    ask(client, "{\"execute\": \"query-jobs\"}", "{\"return\": []}\r\n");
    ask(client, "{\"execute\": \"system_reset\"}", DONE);
    assert_int_equal(vm.resets, 1);
    ask_for_error(client, "{\"execute\": \"cont\"}", "GenericError",
                  "Resetting the Virtual Machine is required");
    ask_for_error(client, "{\"execute\": \"system_powerdown\"}", "DeviceNotActive", "no button");
    vm.has_button = true;
    ask(client, "{\"execute\": \"system_powerdown\"}", DONE);
    ask_for_error(client, "{\"execute\": \"device_del\", \"arguments\": {\"id\": \"x\"}}",
                  "DeviceNotFound", "Device 'x' not found");
    ask(client, "{\"execute\": \"quit\"}", DONE);
    assert_int_equal(vm.quits, 1);
}

/* Each command is in the list once, with well-formed arguments, and refuses a member that it has
 * not, unless it says that it takes any. */
static void test_table(void **state)
{
    struct client *client = *state;

    for (const struct qmp_command *c = qmp_commands; c->name; c++) {
        autofree char *request = xasprintf(
            "{\"execute\": \"%s\", \"arguments\": {\"no-such-member\": 1, \"id\": \"x\", \"path\": "
            "\"x\", \"typename\": \"x\", \"driver\": \"x\", \"qom-type\": \"x\"}}",
            c->name);
        autofree char *reply = NULL;

        assert_ptr_equal(qmp_command_find(c->name), c);
        say(client, request);
        reply = peer_take(&client->peer);
        if (strncmp(reply, "{\"error\": ", 10)) {
            fail_msg("%s: %s", c->name, reply);
        }
    }
    assert_int_equal(vm.quits, 0);
    assert_int_equal(vm.resets, 0);
    assert_null(qmp_command_find("query-nothing"));
}

/* ---- events --------------------------------------------------------------------------------- */

static void test_events(void **state)
{
    json_t *event = json_pack("{s:s, s:{s:b}}", "event", "STOP", "data", "guest", 1);
    struct client client;

    connect(&client, false);
    expect(&client, GREETING);
    qmp_session_event(client.session, event);
    expect(&client, ""); /* not before negotiation */
    ask(&client, CAPABILITIES, DONE);
    say(&client, "{\"execute\": ");
    qmp_session_event(client.session, event);
    expect(&client, "{\"event\": \"STOP\", \"data\": {\"guest\": true}}\r\n");
    ask(&client, "\"query-status\"}", RUNNING);
    qmp_session_close(client.session);
    qmp_session_event(client.session, event);
    expect(&client, "");
    disconnect(&client);
    json_decref(event);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_negotiation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_several_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_id, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pretty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_malformed_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_recovery, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nul_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nesting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_noise, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_table, setup, teardown),
        cmocka_unit_test_setup_teardown(test_events, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
