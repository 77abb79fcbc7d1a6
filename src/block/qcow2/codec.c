/* SPDX-License-Identifier: MIT */
/*
 * See codec.h. libdeflate is three times as fast as zlib. It wants whole streams; zlib is for
 * those that just end (QEMU takes them, too).
 */
#include "block/qcow2/codec.h"

#include <libdeflate.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

/* At these, `convert -c` gets smaller images than qemu-img's from its levels: zlib's 6 in a window of
 * 4 KiB, zstd's default. */
#define DEFLATE_LEVEL 4
#define ZSTD_LEVEL    3

/* ---- contexts -------------------------------------------------------------------------------- */

struct codec {
    struct libdeflate_compressor *deflate;
    struct libdeflate_decompressor *inflate;
    ZSTD_CCtx *zstd_compress;
    ZSTD_DCtx *zstd_decompress;
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void free_codec(void *opaque)
{
    struct codec *codec = opaque;

    libdeflate_free_compressor(codec->deflate);
    libdeflate_free_decompressor(codec->inflate);
    ZSTD_freeCCtx(codec->zstd_compress);
    ZSTD_freeDCtx(codec->zstd_decompress);
    free(codec);
}

static void make_key(void)
{
    if (pthread_key_create(&key, free_codec)) {
        abort();
    }
}

/* This thread's, or NULL: no memory. */
static struct codec *get_codec(void)
{
    pthread_once(&once, make_key);
    struct codec *codec = pthread_getspecific(key);

    if (!codec) {
        codec = calloc(1, sizeof(*codec));
        if (codec && pthread_setspecific(key, codec)) {
            free(codec);
            codec = NULL;
        }
    }
    return codec;
}

/* ---- deflating ------------------------------------------------------------------------------- */

static size_t deflate_zlib(struct codec *codec, const void *from, size_t size, void *to,
                           size_t room)
{
    if (!codec->deflate) {
        codec->deflate = libdeflate_alloc_compressor(DEFLATE_LEVEL);
    }
    return codec->deflate ? libdeflate_deflate_compress(codec->deflate, from, size, to, room) : 0;
}

static size_t deflate_zstd(struct codec *codec, const void *from, size_t size, void *to,
                           size_t room)
{
    if (!codec->zstd_compress) {
        codec->zstd_compress = ZSTD_createCCtx();
    }
    if (!codec->zstd_compress) {
        return 0;
    }
    size_t ret = ZSTD_compressCCtx(codec->zstd_compress, to, room, from, size, ZSTD_LEVEL);
    return ZSTD_isError(ret) ? 0 : ret;
}

size_t qcow2_deflate(enum qcow2_compression how, const void *from, size_t size, void *to,
                     size_t room)
{
    struct codec *codec = get_codec();

    if (!codec) {
        return 0;
    }
    return how == QCOW2_COMPRESSION_ZSTD ? deflate_zstd(codec, from, size, to, room)
                                         : deflate_zlib(codec, from, size, to, room);
}

/* ---- inflating ------------------------------------------------------------------------------- */

/* A stream without its last block is fine if all is there; one that goes on is not. */
static bool inflate_unfinished(const void *from, size_t length, void *to, size_t size)
{
    z_stream stream = {
        .next_in = (void *)from,
        .avail_in = (uInt)length,
        .next_out = to,
        .avail_out = (uInt)size,
    };
    uint8_t beyond;

    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) {
        return false;
    }
    int ret = inflate(&stream, Z_SYNC_FLUSH);
    bool ok = !stream.avail_out && (ret == Z_OK || ret == Z_STREAM_END || ret == Z_BUF_ERROR);
    if (ok && ret != Z_STREAM_END) {
        stream.next_out = &beyond;
        stream.avail_out = 1;
        inflate(&stream, Z_SYNC_FLUSH);
        ok = stream.avail_out;
    }
    inflateEnd(&stream);
    return ok;
}

static bool inflate_zlib(struct codec *codec, const void *from, size_t length, void *to,
                         size_t size)
{
    size_t in, out = 0;

    if (!codec->inflate) {
        codec->inflate = libdeflate_alloc_decompressor();
    }
    if (codec->inflate && libdeflate_deflate_decompress_ex(codec->inflate, from, length, to, size,
                                                           &in, &out) == LIBDEFLATE_SUCCESS) {
        return out == size;
    }
    return inflate_unfinished(from, length, to, size);
}

/* Frame by frame; behind the last one is what the sector was filled up with. */
static bool inflate_zstd(struct codec *codec, const void *from, size_t length, void *to,
                         size_t size)
{
    size_t in = 0, out = 0;

    if (!codec->zstd_decompress) {
        codec->zstd_decompress = ZSTD_createDCtx();
    }
    while (codec->zstd_decompress && out < size && in < length) {
        const uint8_t *frame = (const uint8_t *)from + in;
        size_t n = ZSTD_findFrameCompressedSize(frame, length - in);
        if (ZSTD_isError(n) || !n) {
            return false;
        }
        size_t ret =
            ZSTD_decompressDCtx(codec->zstd_decompress, (uint8_t *)to + out, size - out, frame, n);
        if (ZSTD_isError(ret)) {
            return false;
        }
        in += n;
        out += ret;
    }
    return out == size;
}

bool qcow2_inflate(enum qcow2_compression how, const void *from, size_t length, void *to,
                   size_t size)
{
    struct codec *codec = get_codec();

    if (!codec) {
        return false;
    }
    return how == QCOW2_COMPRESSION_ZSTD ? inflate_zstd(codec, from, length, to, size)
                                         : inflate_zlib(codec, from, length, to, size);
}
