/* SPDX-License-Identifier: MIT */
/* -drive and -blockdev: what they take, what they refuse, and with which words. */
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/filename.h"
#include "kit.h"

#define NATIVE "aio=native was specified, but it requires cache.direct=on, which was not specified."

/* ---- -blockdev ------------------------------------------------------------------------------- */

#define TAKEN "json:{\"driver\": \"null-co\", \"size\": 1048576}"

static void blockdev_refusals(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"null-co", "'node-name' must be specified for the root node"},
        {"node-name=n", "Parameter 'driver' is missing"},
        {"driver=null-co,node-name=1n",
         "Invalid node-name: '1n'; it begins with a letter, then come letters, digits, '-', '.' "
         "and '_'"},
        {"driver=null-co,node-name=#block000",
         "Invalid node-name: '#block000'; it begins with a letter, then come letters, digits, "
         "'-', '.' and '_'"},
        {"driver=null-co,node-name=abcdefghijklmnopqrstuvwxyzabcdef",
         "Node name too long: 'abcdefghijklmnopqrstuvwxyzabcdef'; at most 31 characters"},
        {"driver=null-co,node-name=taken", "Duplicate nodes with node-name='taken'"},
        {"driver=raw,node-name=twice,file.driver=null-co,file.node-name=twice",
         "Duplicate nodes with node-name='twice'"},
        {"driver=null-co,node-name=d0", "node-name=d0 is conflicting with a device id"},
        {"driver=null-co,node-name=n,latency-nss=5",
         "block driver 'null-co': unknown option 'latency-nss'; did you mean 'latency-ns'?"},
        {"driver=null-co,node-name=n,detect-zeroes=unmap",
         "setting detect-zeroes to unmap is not allowed without setting discard operation to "
         "unmap; give discard=unmap"},
        {"driver=raw,node-name=n",
         "A block device must be specified for \"file\": file=NODE-NAME, or file.driver=… and "
         "its options"},
        {"driver=raw,node-name=n,file=nobody",
         "Cannot find device='nobody' nor node-name='nobody'"},
        {"driver=raw,node-name=n,file=taken,file.size=1M",
         "'file' names node 'taken', so 'file.size' cannot be given as well"},
        {"driver=raw,node-name=n,file.driver=null-co,file.sise=1M",
         "block driver 'null-co': unknown option 'sise'; did you mean 'size'?"},
        {"driver=raw,node-name=n,file=taken,size=1000",
         "size=1000 is not a positive multiple of 512"},
        {"driver=raw,node-name=n,file=taken,offset=4097,size=1M",
         "offset=4097 and size=1048576 do not fit into '" TAKEN "', which has 1048576 bytes"},
        {"driver=raw,node-name=n,file=taken,offset=2M",
         "offset=2097152 lies behind the end of '" TAKEN "', which has 1048576 bytes"},
        {"driver=raw,node-name=n,file=ro",
         "node 'ro' is read-only and node 'n' above it is not; give both read-only=on"},
        {"driver=file,node-name=n", "The 'file' block driver requires a file name: filename=FILE"},
        {"driver=file,node-name=n,filename=image,aio=native", NATIVE},
        {"driver=file,node-name=n,filename=image,aio=bad",
         "option 'aio': 'bad' is unknown; use threads, io_uring or native"},
        {"driver=file,node-name=n,filename=image,aio-max-batch=8",
         "aio-max-batch=8 is not supported: all requests that have come together are submitted at "
         "once; leave it out"},
        {"driver=raw,node-name=n,file.driver=raw,file.file.filename=image",
         "Parameter 'file.file.driver' is missing"},
        {"driver=raw,node-name=n,file.driver=null-co,file.read-zeroes=maybe",
         "option 'file.read-zeroes': 'maybe' is neither 'on' nor 'off'"},
        /* Looked at before anything is opened or connected to. */
        {"driver=raw,node-name=n,file=nobody,sise=1M",
         "block driver 'raw': unknown option 'sise'; did you mean 'size'?"},
        {"driver=file,node-name=n,filename=missing,loking=on",
         "block driver 'file': unknown option 'loking'; did you mean 'locking'?"},
        {"driver=qcow2,node-name=n,file=nobody,overlap-check.main-heade=on",
         "block driver 'qcow2': unknown option 'overlap-check.main-heade'; did you mean "
         "'overlap-check.main-header'?"},
    };

    kit_blockdev("driver=null-co,node-name=taken,size=1M");
    kit_blockdev("driver=null-co,node-name=ro,read-only=on");
    kit_drive("driver=null-co,id=d0,if=none");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        kit_blockdev_fails(cases[i].text, cases[i].message);
    }
    /* What failed has left nothing. */
    assert_null(block_node_find("n"));
    assert_int_equal(block_node_find("taken")->refs, 1);
}

static void nested_and_referenced_nodes(void **state)
{
    kit_blockdev("driver=raw,node-name=outer,offset=1M,file.driver=raw,file.node-name=inner,"
                 "file.size=4M,file.file.driver=null-co,file.file.size=8M,cache.direct=on");
    struct block_node *outer = block_node_find("outer"), *inner = block_node_find("inner");
    assert_ptr_equal(outer->file, inner);
    assert_int_equal(block_length(outer), 3 << 20);
    assert_int_equal(block_length(inner), 4 << 20);
    assert_int_equal(inner->file->name[0], '#');
    assert_true(inner->file->flags & BLOCK_OPEN_NOCACHE);

    struct error *err = NULL;
    assert_false(blockdev_del("inner", &err));
    kit_assert_error(err, "Node inner is not owned by the monitor");
    err = NULL;
    assert_false(blockdev_del("nobody", &err));
    kit_assert_error(err, "Failed to find node with node-name='nobody'");

    kit_blockdev("driver=null-co,node-name=base");
    kit_blockdev("driver=raw,node-name=top,file=base");
    err = NULL;
    assert_false(blockdev_del("base", &err));
    kit_assert_error(err, "Block device base is in use by 'top'");
    assert_true(blockdev_del("top", NULL));
    assert_true(blockdev_del("base", NULL));
    assert_true(blockdev_del("outer", NULL));
    assert_null(block_node_first());
}

/* JSON, as QMP and libvirt have it. */
static void json_blockdev(void **state)
{
    struct options *opts = options_parse(
        "{\"driver\":\"raw\",\"node-name\":\"j\",\"read-only\":true,\"cache\":{\"direct\":false,"
        "\"no-flush\":true},\"discard\":\"unmap\",\"file\":{\"driver\":\"null-co\",\"size\":65536}"
        "}",
        NULL, NULL);
    assert_true(blockdev_add(opts, NULL));
    options_free(opts);
    struct block_node *node = block_node_find("j");
    assert_int_equal(node->flags, BLOCK_OPEN_NO_FLUSH | BLOCK_OPEN_UNMAP);
    assert_int_equal(node->file->flags, BLOCK_OPEN_NO_FLUSH | BLOCK_OPEN_UNMAP);
    assert_int_equal(block_length(node), 65536);
}

static void json_fails(const char *text, const char *message)
{
    struct error *err = NULL;
    struct options *opts = options_parse(text, NULL, &err);

    assert_non_null(opts);
    if (blockdev_add(opts, &err)) {
        fail_msg("%s should have been refused", text);
    }
    kit_assert_error(err, message);
    options_free(opts);
}

/* JSON has types, and errors say where. */
static void json_types(void **state)
{
#define EXPECTED(key, type) "Invalid parameter type for '" key "', expected: " type
#define NODE                "object or the name of a node"
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{'driver':5,'node-name':'n'}", EXPECTED("driver", "string")},
        {"{'driver':'null-co','node-name':5}", EXPECTED("node-name", "string")},
        {"{'driver':'null-co','node-name':null}", EXPECTED("node-name", "string")},
        {"{'driver':'null-co','node-name':'n','read-only':'yes'}",
         EXPECTED("read-only", "boolean")},
        {"{'driver':'null-co','node-name':'n','read-only':1}", EXPECTED("read-only", "boolean")},
        {"{'driver':'null-co','node-name':'n','size':'1M'}", EXPECTED("size", "integer")},
        {"{'driver':'null-co','node-name':'n','size':1048576.0}", EXPECTED("size", "integer")},
        {"{'driver':'null-co','node-name':'n','size':null}", EXPECTED("size", "integer")},
        {"{'driver':'null-co','node-name':'n','size':{}}", EXPECTED("size", "integer")},
        {"{'driver':'null-co','node-name':'n','size':[1]}", EXPECTED("size", "integer")},
        {"{'driver':'null-co','node-name':'n','cache':5}", EXPECTED("cache", "object")},
        {"{'driver':'null-co','node-name':'n','cache':{'direct':'on'}}",
         EXPECTED("cache.direct", "boolean")},
        {"{'driver':'null-co','node-name':'n','discard':true}", EXPECTED("discard", "string")},
        {"{'driver':'null-co','node-name':'n','foo':{}}",
         "block driver 'null-co': unknown option 'foo'"},
        {"{'driver':'raw','node-name':'n','file':5}", EXPECTED("file", NODE)},
        {"{'driver':'raw','node-name':'n','file':null}", EXPECTED("file", NODE)},
        {"{'driver':'raw','node-name':'n','file':['x1']}", EXPECTED("file", NODE)},
        {"{'driver':'raw','node-name':'n','file':[]}", EXPECTED("file", NODE)},
        {"{'driver':'raw','node-name':'n','file':{}}", "Parameter 'file.driver' is missing"},
        {"{'driver':'raw','node-name':'n','file':{'size':1}}",
         "Parameter 'file.driver' is missing"},
        {"{'driver':'raw','node-name':'n','file':{'driver':'file','filename':5}}",
         EXPECTED("file.filename", "string")},
        {"{'driver':'raw','node-name':'n','file':{'driver':'file','filename':{'a':1}}}",
         EXPECTED("file.filename", "string")},
        {"{'driver':'qcow2','node-name':'n','file':'x','backing':{}}",
         "Parameter 'backing.driver' is missing"},
        {"{'driver':'qcow2','node-name':'n','file':'x','backing':5}", EXPECTED("backing", NODE)},
        {"{'driver':'qcow2','node-name':'n','file':'x','overlap-check':{'template':5}}",
         EXPECTED("overlap-check.template", "string")},
        {"{'driver':'raw','node-name':'n','file.driver':'null-co'}",
         "Parameter 'file.driver' is unexpected: in JSON an object is a member, \"file\": {…}"},
        {"{'driver':'blkdebug','node-name':'n','image':{'driver':'null-co'},'inject-error':"
         "[{'event':'none','errno':'5'}]}",
         EXPECTED("inject-error.0.errno", "integer")},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        json_fails(cases[i].text, cases[i].message);
    }
    struct options *opts =
        options_parse("{'driver':'null-co','node-name':'n','cache':{}}", NULL, NULL);
    assert_true(blockdev_add(opts, NULL));
    options_free(opts);
    assert_null(block_node_find("n")->next);
#undef EXPECTED
#undef NODE
}

/* A drive's id stands for its node. */
static void drives_as_children(void **state)
{
    struct block_backend *be = kit_drive("driver=null-co,id=d0,if=none,readonly=on");

    kit_blockdev("driver=raw,node-name=n,file=d0,read-only=on");
    assert_ptr_equal(block_node_find("n")->file, backend_root(be));
}

static void one_writer(void **state)
{
    struct error *err = NULL;

    kit_blockdev("driver=null-co,node-name=n");
    kit_blockdev("driver=raw,node-name=a,file=n");
    kit_blockdev("driver=raw,node-name=b,file=n");
    kit_blockdev("driver=raw,node-name=r1,file=n,read-only=on");
    kit_blockdev("driver=raw,node-name=r2,file=n,read-only=on");
    struct block_backend *be = backend_attach("a", "disk0", true, false, NULL);
    assert_non_null(be);
    assert_null(backend_attach("b", "disk1", true, false, &err));
    kit_assert_error(err,
                     "node 'n' is already in use by 'a', so 'b' cannot write it while that may "
                     "write to it");
    err = NULL;
    backend_detach(be);
    be = backend_attach("r1", "disk0", false, false, NULL);
    struct block_backend *other = backend_attach("r2", "disk1", false, false, NULL);
    assert_true(be && other);
    assert_null(backend_attach("b", "disk2", true, false, &err));
    kit_assert_error(err, "node 'n' is already in use by 'r2', so 'b' cannot write it");
    err = NULL;
    backend_detach(other);
    backend_detach(be);
    /* What a device shares, the nodes below share as well. */
    be = backend_attach("a", "disk0", true, true, NULL);
    other = backend_attach("b", "disk1", true, true, NULL);
    assert_true(be && other);
    assert_null(backend_attach("r1", "disk2", false, false, NULL));
    backend_detach(other);
    backend_detach(be);
    for (const char *const *name = (const char *const[]){"a", "b", "r1", "r2", NULL}; *name;
         name++) {
        assert_true(blockdev_del(*name, NULL));
    }
    assert_int_equal(block_node_find("n")->perms.used | block_node_find("n")->perms.denied, 0);

    be = backend_attach("n", "disk0", true, false, NULL);
    assert_non_null(be);
    assert_string_equal(backend_name(be), "");
    assert_string_equal(backend_device(be), "disk0");
    assert_null(backend_attach("n", "disk1", false, false, &err));
    kit_assert_error(err, "node 'n' is already in use by 'disk0', so 'disk1' cannot read it while "
                          "that may write to it | Devices that all have share-rw=on may use it "
                          "together.");
    backend_detach(be);
    assert_null(backend_first());

    /* Two that only read share. */
    struct block_backend *be1 = backend_attach("n", "disk1", false, false, NULL);
    struct block_backend *be2 = backend_attach("n", "disk2", false, false, NULL);
    assert_true(be1 && be2 && backend_is_readonly(be1));
    backend_detach(be1);
    backend_detach(be2);
}

/* share-rw=on: writers of one node, if all of them say so. */
static void shared_writers(void **state)
{
    static const char in_use[] =
        "node 'n' is already in use by 'disk%d', so 'disk3' cannot write it while that may write "
        "to it | Devices that all have share-rw=on may use it together.";
    struct error *err = NULL;
    char message[256];

    kit_blockdev("driver=null-co,node-name=n");
    struct block_backend *be1 = backend_attach("n", "disk1", true, true, NULL);
    struct block_backend *be2 = backend_attach("n", "disk2", true, true, NULL);
    struct block_backend *reader = backend_attach("n", "reader", false, true, NULL);
    assert_true(be1 && be2 && reader);
    assert_int_equal(block_node_find("n")->perms.denied, 0);
    assert_null(backend_attach("n", "disk3", true, false, NULL));
    backend_detach(be2);
    backend_detach(reader);
    assert_null(backend_attach("n", "disk3", true, false, &err));
    snprintf(message, sizeof(message), in_use, 1);
    kit_assert_error(err, message);
    backend_detach(be1);

    be1 = backend_attach("n", "disk1", true, false, NULL);
    assert_int_equal(block_node_find("n")->perms.denied, BLOCK_PERM_WRITE);
    err = NULL;
    assert_null(backend_attach("n", "disk3", true, true, &err));
    kit_assert_error(err, message);
    backend_detach(be1);
    assert_int_equal(block_node_find("n")->perms.denied, 0);
    assert_int_equal(block_node_find("n")->perms.used, 0);
}

static void attach_refusals(void **state)
{
    struct error *err = NULL;

    struct block_backend *be = kit_drive("driver=null-co,id=d0,if=none");
    kit_drive("driver=null-co,id=ro,if=none,readonly=on");
    assert_ptr_equal(backend_attach("d0", "disk0", true, false, NULL), be);
    assert_null(backend_attach("d0", "disk1", true, false, &err));
    kit_assert_error(err, "Drive 'd0' is already in use by another block device: 'disk0'");
    err = NULL;
    assert_null(backend_attach("d1", "disk1", true, false, &err));
    kit_assert_error(err, "Cannot find device='d1' nor node-name='d1'; make it with -drive id=d1 "
                          "or -blockdev node-name=d1");
    err = NULL;
    assert_true(backend_text_is_readonly("ro"));
    assert_null(backend_attach("ro", "disk1", true, false, &err));
    error_free(err);
    assert_string_equal(backend_device(backend_find("ro")), "");
    backend_detach(be);
    assert_ptr_equal(backend_find("d0"), be); /* -drive keeps it */
}

static void unknown_driver(void **state)
{
    char *names = block_driver_names();
    char *message = xasprintf("Unknown driver 'nul-co'; this build has %s", names);

    assert_non_null(strstr(names, "raw, file, "));
    kit_blockdev_fails("driver=nul-co,node-name=n", message);
    kit_drive_fails("file=null-co://,format=nul-co", message);
    free(message);
    free(names);
}

/* ---- -drive ---------------------------------------------------------------------------------- */

static void drive_refusals(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"if=none",
         "-drive needs file=FILE; drives without a medium are not supported in this build"},
        {"file=null-co://,if=nvme",
         "unsupported bus type 'nvme'; if= takes none, virtio, ide, scsi, floppy, pflash, sd, mtd "
         "or xen"},
        {"file=null-co://,format=raw,driver=raw", "Cannot specify both 'driver' and 'format'"},
        {"file=null-co://,format=raw,cache=fast",
         "invalid cache option: cache=fast; use none, writeback, writethrough, directsync or "
         "unsafe"},
        {"file=null-co://x,format=raw",
         "The only allowed filename for this driver is 'null-co://', not 'null-co://x'"},
        {"file=nbb:localhost:10809,format=raw",
         "Unknown protocol 'nbb' in 'nbb:localhost:10809'; for a file of that name write "
         "'./nbb:localhost:10809'"},
        {"file=json:[1],format=raw",
         "Could not parse the JSON options 'json:[1]': they begin with 'json:{'"},
        {"file=null-co://,format=raw,stats=on", "block driver 'raw': unknown option 'stats'"},
        {"file=json:{\"driver\":\"raw\",,\"file\":\"node\"},aio=io_uring",
         "aio=io_uring finds no file node below the drive; give it to that node"},
        {"file=plain,format=raw,aio=native", NATIVE},
        {"file=plain,format=raw,aio=native,cache=unsafe", NATIVE},
        {"file=null-co://,format=raw,werror=panic",
         "'panic' invalid write error action; use report, ignore, stop, enospc or auto"},
        {"file=null-co://,format=raw,rerror=enospc",
         "'enospc' invalid read error action; use report, ignore, stop or auto"},
        {"file=null-co://,format=raw,media=tape", "'tape' invalid media; use disk or cdrom"},
        {"file=null-co://,format=raw,if=ide,bus=0,unit=2", "unit 2 too big (max is 1)"},
        {"file=null-co://,format=raw,if=ide,bus=0,index=2",
         "index cannot be used with bus and unit"},
        {"file=null-co://,format=raw,if=ide,index=3", "drive with bus=1, unit=1 (index=3) exists"},
        {"file=null-co://,format=raw,id=d0", "Device with id 'd0' already exists"},
        {"file=null-co://,format=raw,id=0d",
         "Invalid block device name '0d'; it begins with a letter, then come letters, digits, "
         "'-', '.' and '_'"},
        {"file=null-co://,format=raw,id=node",
         "Device name 'node' conflicts with an existing node name"},
        {"file=null-co://,format=raw,readonly=on,read-only=on",
         "'readonly' and its alias 'read-only' can't be used at the same time"},
        {"file=null-co://,format=raw,cachee=none",
         "block driver 'raw': unknown option 'cachee'; did you mean 'cache'?"},
        {"file=null-co://,format=raw,file.sise=1M",
         "block driver 'null-co': unknown option 'sise'; did you mean 'size'?"},
        /* Two names for the image. */
        {"file=plain,format=raw,file.filename=other",
         "Can't specify 'file' and 'file.filename' options at the same time"},
        {"file=plain,format=file,filename=other",
         "Can't specify 'file' and 'filename' options at the same time"},
        {"file=nbd://127.0.0.1:1/zz,file.export=ex",
         "Option 'file.export' cannot be used with a file name"},
        {"file=nbd://127.0.0.1:1,format=raw,file.export=ex",
         "Option 'file.export' cannot be used with a file name"},
        {"file=nbd:unix:/x,format=nbd,server.host=y",
         "Option 'server.host' cannot be used with a file name"},
        {"file=blkdebug:a:plain,format=raw,file.config=b",
         "Option 'file.config' cannot be used with a file name"},
    };

    kit_drive("driver=null-co,id=d0,if=ide,index=3");
    kit_blockdev("driver=null-co,node-name=node");
    kit_make_file("plain", 512);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        kit_drive_fails(cases[i].text, cases[i].message);
    }
    assert_null(backend_next(backend_find("d0")));
}

static void cache_modes(void **state)
{
    static const struct {
        const char *text;
        unsigned flags;
        bool write_cache;
    } cases[] = {
        {"", 0, true},
        {",cache=writeback", 0, true},
        {",cache=none", BLOCK_OPEN_NOCACHE, true},
        {",cache=off", BLOCK_OPEN_NOCACHE, true},
        {",cache=writethrough", 0, false},
        {",cache=directsync", BLOCK_OPEN_NOCACHE, false},
        {",cache=unsafe", BLOCK_OPEN_NO_FLUSH, true},
        {",cache=none,cache.direct=off", 0, true},
        {",cache=none,cache.writeback=off", BLOCK_OPEN_NOCACHE, false},
        {",cache.direct=on,cache.no-flush=on", BLOCK_OPEN_NOCACHE | BLOCK_OPEN_NO_FLUSH, true},
        {",discard=unmap", BLOCK_OPEN_UNMAP, true},
        {",discard=on", BLOCK_OPEN_UNMAP, true},
        {",discard=ignore", 0, true},
        {",discard=off", 0, true},
    };
    static const unsigned detect = BLOCK_OPEN_DETECT_ZEROES | BLOCK_OPEN_DETECT_UNMAP;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct block_backend *be = kit_drive("file=null-co://,format=raw,if=none%s", cases[i].text);
        assert_int_equal(backend_root(be)->flags, cases[i].flags | BLOCK_OPEN_RDWR);
        assert_int_equal(backend_root(be)->file->flags, cases[i].flags | BLOCK_OPEN_RDWR);
        assert_int_equal(backend_write_cache(be), cases[i].write_cache);
        kit_close();
    }
    struct block_backend *be = kit_drive("driver=null-co,if=none,detect-zeroes=unmap");
    assert_int_equal(backend_root(be)->flags & detect, BLOCK_OPEN_DETECT_ZEROES);
    be = kit_drive("driver=null-co,if=none,detect-zeroes=unmap,discard=unmap");
    assert_int_equal(backend_root(be)->flags & detect, detect);
}

static void drive_names_and_places(void **state)
{
    static const struct {
        const char *text, *name;
        int bus, unit;
    } cases[] = {
        {"", "ide0-hd0", 0, 0},          {"if=ide,media=cdrom,", "ide0-cd1", 0, 1},
        {"if=ide,", "ide1-hd0", 1, 0},   {"if=virtio,", "virtio0", 0, 0},
        {"if=virtio,", "virtio1", 0, 1}, {"if=virtio,index=5,", "virtio5", 0, 5},
        {"if=none,", "none0", 0, 0},     {"if=none,id=mine,", "mine", 0, 1},
        {"if=none,", "none2", 0, 2},     {"if=scsi,bus=1,unit=3,", "scsi1-hd3", 1, 3},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool has_serial = !strstr(cases[i].text, "if=none");
        autofree char *serial = xasprintf(",serial=s%zu", i);
        char *text =
            xasprintf("%sfile=null-co://,format=raw%s", cases[i].text, has_serial ? serial : "");
        struct options *opts = options_parse(text, NULL, NULL);
        struct drive_spec spec;
        assert_true(drive_new(opts, "ide", &spec, NULL));
        assert_string_equal(backend_name(spec.backend), cases[i].name);
        assert_int_equal(spec.bus, cases[i].bus);
        assert_int_equal(spec.unit, cases[i].unit);
        if (has_serial) {
            assert_int_equal(spec.serial[1], '0' + i);
        } else {
            assert_null(spec.serial);
        }
        assert_int_equal(spec.is_cdrom, i == 1);
        assert_int_equal(backend_is_readonly(spec.backend), i == 1);
        free(spec.serial);
        options_free(opts);
        free(text);
    }
}

/* Only a device has a serial number. */
static void serial_without_device(void **state)
{
    struct options *opts = options_parse("if=none,driver=null-co,serial=x", NULL, NULL);
    struct error *err = NULL;
    struct drive_spec spec;

    assert_false(drive_new(opts, "ide", &spec, &err));
    assert_non_null(strstr(error_message(err), "give serial=x to the -device"));
    error_free(err);
    options_free(opts);
}

static void error_policies(void **state)
{
    struct block_backend *be = kit_drive("driver=null-co,if=none,id=a");
    assert_int_equal(backend_error_action(be, true, -28), BLOCK_ERROR_REPORT);
    assert_int_equal(backend_error_action(be, false, -28), BLOCK_ERROR_STOP);
    assert_int_equal(backend_error_action(be, false, 28), BLOCK_ERROR_STOP);
    assert_int_equal(backend_error_action(be, false, -5), BLOCK_ERROR_REPORT);

    be = kit_drive("driver=null-co,if=none,id=b,rerror=stop,werror=ignore");
    assert_int_equal(backend_error_action(be, true, -5), BLOCK_ERROR_STOP);
    assert_int_equal(backend_error_action(be, false, -28), BLOCK_ERROR_IGNORE);

    assert_true(backend_set_error_policy(be, "auto", "auto", NULL));
    assert_int_equal(backend_error_action(be, false, -28), BLOCK_ERROR_IGNORE);
    assert_false(backend_set_error_policy(be, "report", "what", NULL));
    assert_int_equal(backend_error_action(be, true, -5), BLOCK_ERROR_STOP);
}

#define JSON_RAW_OVER_NULL                                                                         \
    "file=json:{\"driver\":\"raw\",,\"file\":{\"driver\":\"null-co\",,\"size\":2097152}},"         \
    "if=none"

/* Ways to say the same. */
static void drive_spellings(void **state)
{
    static const char *const texts[] = {
        "file=null-co://,format=raw,file.size=2M,if=none",
        "driver=raw,file.driver=null-co,file.size=2M,if=none",
        "format=raw,file=json:{\"driver\":\"null-co\",,\"size\":2097152},if=none",
        JSON_RAW_OVER_NULL,
        "file=null-co://,file.size=2M,if=none", /* probed */
        /* In file names types do not matter, and names may have dots; options override them. */
        "file=json:{\"driver\":\"raw\",,\"file.driver\":\"null-co\",,\"file.size\":\"2M\"},"
        "if=none",
        JSON_RAW_OVER_NULL ",file.size=2M,read-only=on",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct block_backend *be = kit_drive("%s", texts[i]);
        assert_string_equal(backend_root(be)->driver->name, "raw");
        assert_string_equal(backend_root(be)->file->driver->name, "null-co");
        assert_int_equal(backend_length(be), 2 << 20);
        kit_close();
    }
    struct block_backend *be = kit_drive("file=null-co://,format=null-co,size=3M,if=none");
    assert_null(backend_root(be)->file);
    assert_int_equal(backend_length(be), 3 << 20);
    be = kit_drive("driver=null-co,size=1000,latency-ns=90000000000,if=none");
    assert_int_equal(backend_length(be), 1024);
}

/* What file names stand for: "key=value" of all options, in order. */
static void file_names(void **state)
{
    static const struct {
        const char *name, *meaning;
    } cases[] = {
        {"a", "driver=file filename=a"},
        {"./nbd:x", "driver=file filename=./nbd:x"},
        {"file:nbd:x", "driver=file filename=./nbd:x"},
        {"file:/nbd:x", "driver=file filename=/nbd:x"},
        {"host_device:a:x", "driver=host_device filename=./a:x"},
        {"json: {'driver':'qcow2','file.filename':'a','backing.filename':'b'}",
         "driver=qcow2 file.filename=a backing.filename=b file.driver=file"},
        {"json: {'driver':'raw','offset':5,'file.filename':'nbd:\"x\\''}",
         "driver=raw offset=5 file.filename=nbd:\"x' file.driver=file"},
        {"host_device:/dev/x", "driver=host_device filename=/dev/x"},
        {"null-co://", "driver=null-co"},
        {"null-aio://", "driver=null-aio"},
        {"blkdebug:conf:a", "driver=blkdebug config=conf image.driver=file image.filename=a"},
        {"blkdebug::nbd:h:1", "driver=blkdebug image.driver=nbd image.server.type=inet "
                              "image.server.port=1 image.server.host=h"},
        {"nbd://h", "driver=nbd server.type=inet server.port=10809 server.host=h"},
        {"nbd://h:7/", "driver=nbd server.type=inet server.port=7 server.host=h"},
        {"nbd+tcp://[::1]:7/a/b%20c",
         "driver=nbd server.type=inet server.port=7 server.host=::1 export=a/b c"},
        {"nbds://h/x",
         "driver=nbd server.type=inet server.port=10809 server.host=h export=x tls=on"},
        {"nbd+unix:///x?socket=/a%2Fb", "driver=nbd server.type=unix server.path=/a/b export=x"},
        {"nbd+unix://?socket=s", "driver=nbd server.type=unix server.path=s"},
        {"nbd:h:7:exportname=a:b", "driver=nbd export=a:b server.type=inet server.port=7 "
                                   "server.host=h"},
        {"nbd:unix:/s", "driver=nbd server.type=unix server.path=/s"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error *err = NULL;
        struct options *opts = block_filename_parse(cases[i].name, &err);
        char *text = xstrdup("");

        if (!opts) {
            fail_msg("%s: %s", cases[i].name, error_message(err));
        }
        for (size_t j = 0; j < options_count(opts); j++) {
            char *longer = xasprintf("%s%s%s=%s", text, j ? " " : "", options_key(opts, j),
                                     options_value(opts, j));
            free(text);
            text = longer;
        }
        assert_string_equal(text, cases[i].meaning);
        free(text);
        options_free(opts);
    }
}

static void bad_file_names(void **state)
{
    static const char *const nbd[] = {
        "nbd:",
        "nbd:h",
        "nbd:unix:",
        "nbd:h:",
        "nbd://",
        "nbd://[::1",
        "nbd://[]:1",
        "nbd://h/x?socket=s",
        "nbd+unix:///x",
        "nbd+unix://h/x?socket=s",
        "nbd+unix:///x?sock=s",
        "nbd+unix:///x?socket=",
        "nbd://h/%4",
        "nbd://h/%zz",
        "nbd://h/a%00b",
        "nbd://h/x#y",
        "nbd+unix:///x?socket=s&y=z",
    };
    struct error *err;

    for (size_t i = 0; i < ARRAY_SIZE(nbd); i++) {
        err = NULL;
        if (block_filename_parse(nbd[i], &err)) {
            fail_msg("'%s' should have been refused", nbd[i]);
        }
        assert_non_null(strstr(error_message(err), "is not a valid NBD file name"));
        error_free(err);
    }
    err = NULL;
    assert_null(block_filename_parse("fat:rw:/tmp", &err));
    kit_assert_error(err, "Protocol 'fat' of 'fat:rw:/tmp' is not supported in this build; use "
                          "nbd, or a local file");
    err = NULL;
    assert_null(block_filename_parse("foo:bar", &err));
    kit_assert_error(err, "Unknown protocol 'foo' in 'foo:bar'; for a file of that name write "
                          "'./foo:bar'");
}

static void help_lists_drivers(void **state)
{
    char text[512] = "";
    FILE *to = fmemopen(text, sizeof(text), "w");

    struct options *opts = options_parse("format=help", NULL, NULL);
    assert_true(drive_help(opts, to));
    options_free(opts);
    fclose(to);
    const char *begin = "Supported formats: raw file host_device null-co";
    assert_int_equal(strncmp(text, begin, strlen(begin)), 0);
    assert_int_equal(text[strlen(text) - 1], '\n');
    for (const struct block_driver *const *driver = block_drivers; *driver; driver++) {
        assert_non_null(strstr(text, (*driver)->name));
    }
    opts = options_parse("format=raw", NULL, NULL);
    assert_false(drive_help(opts, stderr));
    options_free(opts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(blockdev_refusals, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(unknown_driver, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(nested_and_referenced_nodes, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(json_blockdev, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(json_types, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(drives_as_children, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(one_writer, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(shared_writers, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(attach_refusals, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(drive_refusals, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(cache_modes, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(drive_names_and_places, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(serial_without_device, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(error_policies, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(drive_spellings, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(help_lists_drivers, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(file_names, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(bad_file_names, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
