/* latentd_msgpack.h: reads the MessagePack that latentd hands to plugins. Optional; C99 and C++11.
 *
 * A latentd_mp is one value within the bytes it came from, which have to live as long as it does. Nothing is allocated.
 * Whatever the bytes are, nothing beyond their end is read, and nothing recurses: how deep values are nested is no matter.
 * What is missing, malformed, cut short or of another type gives the fallback, and a value that counts nothing.
 *
 *     latentd_mp params = latentd_mp_root(job->params);
 *     double strength = latentd_mp_number(params, "strength", 0.5);
 */

#ifndef LATENTD_MSGPACK_H
#define LATENTD_MSGPACK_H

#include <string.h>

#include "latentd.h"

/* What a value is. Other types (ext) may get kinds of their own; they are stepped over now. */
#define LATENTD_MP_NOTHING 0
#define LATENTD_MP_NIL 1
#define LATENTD_MP_FLAG 2
#define LATENTD_MP_NUMBER 3
#define LATENTD_MP_TEXT 4
#define LATENTD_MP_BINARY 5
#define LATENTD_MP_ARRAY 6
#define LATENTD_MP_MAP 7
#define LATENTD_MP_EXT 8

/* A value: its first byte, and the end of all bytes. `at` is null for nothing. */
typedef struct latentd_mp {
    const uint8_t *at;
    const uint8_t *end;
} latentd_mp;

/* A value's head, as read by latentd_mp_head_. */
typedef struct latentd_mp_head {
    /* LATENTD_MP_…. */
    uint32_t kind;
    /* Of texts, binaries and exts: bytes. Of arrays: items. Of maps: pairs. */
    uint32_t length;
    /* Of numbers, and 1 for a flag that is set. */
    double number;
    /* What comes after the head: bytes of a text, or the first item. */
    const uint8_t *body;
} latentd_mp_head;

/* A big-endian number of 1, 2, 4 or 8 bytes. */
static inline uint64_t latentd_mp_big_(const uint8_t *at, uint32_t bytes) {
    uint64_t value = 0;
    uint32_t i;
    for (i = 0; i < bytes; i++) value = value << 8 | at[i];
    return value;
}

/* Reads a value's head; kind is LATENTD_MP_NOTHING if it, or the bytes it announces, are not all there. */
static inline latentd_mp_head latentd_mp_head_(latentd_mp value) {
    latentd_mp_head head = { LATENTD_MP_NOTHING, 0, 0.0, NULL };
    latentd_mp_head nothing = { LATENTD_MP_NOTHING, 0, 0.0, NULL };
    uint8_t tag;
    uint32_t field = 0; /* bytes of the length, or of the number, after the tag */
    uint32_t extra = 0; /* an ext's type */
    uint64_t raw;
    int counts_bytes;
    if (!value.at || value.at >= value.end) return nothing;
    tag = *value.at;
    head.body = value.at + 1;
    if (tag <= 0x7f) {
        head.kind = LATENTD_MP_NUMBER;
        head.number = tag;
    } else if (tag <= 0x8f) {
        head.kind = LATENTD_MP_MAP;
        head.length = tag & 0x0fu;
    } else if (tag <= 0x9f) {
        head.kind = LATENTD_MP_ARRAY;
        head.length = tag & 0x0fu;
    } else if (tag <= 0xbf) {
        head.kind = LATENTD_MP_TEXT;
        head.length = tag & 0x1fu;
    } else if (tag >= 0xe0) {
        head.kind = LATENTD_MP_NUMBER;
        head.number = (double)tag - 256.0;
    } else {
        switch (tag) {
            case 0xc0: head.kind = LATENTD_MP_NIL; break;
            case 0xc2: head.kind = LATENTD_MP_FLAG; break;
            case 0xc3: head.kind = LATENTD_MP_FLAG; head.number = 1.0; break;
            case 0xc4: case 0xc5: case 0xc6: head.kind = LATENTD_MP_BINARY; field = 1u << (tag - 0xc4); break;
            case 0xc7: case 0xc8: case 0xc9: head.kind = LATENTD_MP_EXT; field = 1u << (tag - 0xc7); extra = 1; break;
            case 0xca: case 0xcb: head.kind = LATENTD_MP_NUMBER; field = 4u << (tag - 0xca); break;
            case 0xcc: case 0xcd: case 0xce: case 0xcf: head.kind = LATENTD_MP_NUMBER; field = 1u << (tag - 0xcc); break;
            case 0xd0: case 0xd1: case 0xd2: case 0xd3: head.kind = LATENTD_MP_NUMBER; field = 1u << (tag - 0xd0); break;
            case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8:
                head.kind = LATENTD_MP_EXT; head.length = 1u << (tag - 0xd4); extra = 1; break;
            case 0xd9: case 0xda: case 0xdb: head.kind = LATENTD_MP_TEXT; field = 1u << (tag - 0xd9); break;
            case 0xdc: case 0xdd: head.kind = LATENTD_MP_ARRAY; field = 2u << (tag - 0xdc); break;
            case 0xde: case 0xdf: head.kind = LATENTD_MP_MAP; field = 2u << (tag - 0xde); break;
            default: return nothing; /* 0xc1 is never used */
        }
    }
    if ((uint64_t)(value.end - head.body) < (uint64_t)field + extra) return nothing;
    if (field) {
        raw = latentd_mp_big_(head.body, field);
        if (head.kind != LATENTD_MP_NUMBER) {
            head.length = (uint32_t)raw;
        } else if (tag == 0xca) {
            uint32_t bits = (uint32_t)raw;
            float narrow;
            memcpy(&narrow, &bits, sizeof narrow);
            head.number = (double)narrow;
        } else if (tag == 0xcb) {
            memcpy(&head.number, &raw, sizeof head.number);
        } else if (tag >= 0xd0 && raw >> (field * 8 - 1)) {
            /* Two's complement: how far below zero. */
            head.number = -(double)((~raw & (UINT64_MAX >> (64 - field * 8)))) - 1.0;
        } else {
            head.number = (double)raw;
        }
    }
    head.body += field + extra;
    counts_bytes = head.kind == LATENTD_MP_TEXT || head.kind == LATENTD_MP_BINARY || head.kind == LATENTD_MP_EXT;
    if (counts_bytes && (uint64_t)(value.end - head.body) < head.length) return nothing;
    return head;
}

/* What comes after a value and all that is in it; nothing if it is not whole. */
static inline latentd_mp latentd_mp_after_(latentd_mp value) {
    latentd_mp nothing = { NULL, NULL };
    uint64_t wanted = 1; /* values that still have to come, each a byte at least */
    while (wanted) {
        latentd_mp_head head = latentd_mp_head_(value);
        if (head.kind == LATENTD_MP_NOTHING) return nothing;
        wanted--;
        value.at = head.body;
        if (head.kind == LATENTD_MP_ARRAY) wanted += head.length;
        else if (head.kind == LATENTD_MP_MAP) wanted += 2 * (uint64_t)head.length;
        else if (head.kind == LATENTD_MP_TEXT || head.kind == LATENTD_MP_BINARY || head.kind == LATENTD_MP_EXT)
            value.at += head.length;
        if (wanted > (uint64_t)(value.end - value.at)) return nothing;
    }
    return value;
}

/* The whole of some bytes as a value. */
static inline latentd_mp latentd_mp_root(latentd_bytes bytes) {
    latentd_mp root = { NULL, NULL };
    if (!bytes.data || !bytes.length) return root;
    root.at = (const uint8_t *)bytes.data;
    root.end = root.at + bytes.length;
    return root;
}

/* LATENTD_MP_…. */
static inline uint32_t latentd_mp_kind(latentd_mp value) {
    return latentd_mp_head_(value).kind;
}

/* How many items an array has or pairs a map; 0 for all else, and where so many cannot be in the bytes. */
static inline uint32_t latentd_mp_count(latentd_mp value) {
    latentd_mp_head head = latentd_mp_head_(value);
    uint64_t least = head.length;
    if (head.kind == LATENTD_MP_MAP) least *= 2;
    else if (head.kind != LATENTD_MP_ARRAY) return 0;
    return least > (uint64_t)(value.end - head.body) ? 0 : head.length;
}

/* An array's item, counted from 0. */
static inline latentd_mp latentd_mp_item(latentd_mp array, uint32_t index) {
    latentd_mp nothing = { NULL, NULL };
    latentd_mp_head head = latentd_mp_head_(array);
    latentd_mp item = { head.body, array.end };
    if (head.kind != LATENTD_MP_ARRAY || index >= head.length) return nothing;
    for (; index && item.at; index--) item = latentd_mp_after_(item);
    if (!item.at || !latentd_mp_after_(item).at) return nothing;
    return item;
}

/* Whether a map has a key with a value that is not nil; `value` is set to it, else to nothing. */
static inline int latentd_mp_get(latentd_mp map, const char *key, latentd_mp *value) {
    latentd_mp_head head = latentd_mp_head_(map);
    latentd_mp at = { head.body, map.end };
    size_t length = strlen(key);
    uint32_t i;
    value->at = value->end = NULL;
    if (head.kind != LATENTD_MP_MAP) return 0;
    for (i = 0; i < head.length; i++) {
        latentd_mp_head name = latentd_mp_head_(at);
        latentd_mp found = latentd_mp_after_(at);
        if (!found.at) return 0;
        at = latentd_mp_after_(found);
        if (!at.at) return 0;
        if (name.kind == LATENTD_MP_TEXT && name.length == length && memcmp(name.body, key, length) == 0) {
            if (latentd_mp_kind(found) == LATENTD_MP_NIL) return 0;
            *value = found;
            return 1;
        }
    }
    return 0;
}

/* Any integer or float as a number. Integers beyond 2^53 are rounded. */
static inline double latentd_mp_as_number(latentd_mp value, double fallback) {
    latentd_mp_head head = latentd_mp_head_(value);
    return head.kind == LATENTD_MP_NUMBER ? head.number : fallback;
}

/* 0 or 1. */
static inline int latentd_mp_as_flag(latentd_mp value, int fallback) {
    latentd_mp_head head = latentd_mp_head_(value);
    return head.kind == LATENTD_MP_FLAG ? head.number > 0.0 : fallback;
}

/* A text, which lies within the bytes. */
static inline latentd_text latentd_mp_as_text(latentd_mp value, latentd_text fallback) {
    latentd_mp_head head = latentd_mp_head_(value);
    latentd_text text = { NULL, 0 };
    if (head.kind != LATENTD_MP_TEXT) return fallback;
    text.data = (const char *)head.body;
    text.length = head.length;
    return text;
}

/* What an ext of this type stands for: a handle (LATENTD_EXT_HANDLE) or a file (LATENTD_EXT_FILE). 0 for all else. */
static inline uint64_t latentd_mp_as_ext(latentd_mp value, uint32_t type) {
    latentd_mp_head head = latentd_mp_head_(value);
    if (head.kind != LATENTD_MP_EXT || head.length != 8 || head.body[-1] != type) return 0;
    return latentd_mp_big_(head.body, 8);
}

/* The number by this key of a map. */
static inline double latentd_mp_number(latentd_mp map, const char *key, double fallback) {
    latentd_mp value;
    return latentd_mp_get(map, key, &value) ? latentd_mp_as_number(value, fallback) : fallback;
}

/* The flag by this key of a map. */
static inline int latentd_mp_flag(latentd_mp map, const char *key, int fallback) {
    latentd_mp value;
    return latentd_mp_get(map, key, &value) ? latentd_mp_as_flag(value, fallback) : fallback;
}

/* The picture by this key of a map; 0 if there is none. */
static inline latentd_handle latentd_mp_handle(latentd_mp map, const char *key) {
    latentd_mp value;
    return latentd_mp_get(map, key, &value) ? latentd_mp_as_ext(value, LATENTD_EXT_HANDLE) : 0;
}

/* The library file by this key of a map; 0 if there is none. */
static inline latentd_file latentd_mp_file(latentd_mp map, const char *key) {
    latentd_mp value;
    return latentd_mp_get(map, key, &value) ? latentd_mp_as_ext(value, LATENTD_EXT_FILE) : 0;
}

/* The text by this key of a map. */
static inline latentd_text latentd_mp_text(latentd_mp map, const char *key, latentd_text fallback) {
    latentd_mp value;
    return latentd_mp_get(map, key, &value) ? latentd_mp_as_text(value, fallback) : fallback;
}

#endif /* LATENTD_MSGPACK_H */
