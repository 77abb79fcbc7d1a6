/* SPDX-License-Identifier: MIT */
/* The sizes of a write log, for who writes and who reads it. See blkdebug_log.h. */
#ifndef FERRY_BLOCK_BLKDEBUG_LOG_INT_H
#define FERRY_BLOCK_BLKDEBUG_LOG_INT_H

#define LOG_MAGIC       "ferrylog"
#define LOG_VERSION     1
#define LOG_HEADER_SIZE 32
#define LOG_RECORD_SIZE 40
#define LOG_ALIGNMENT   8

#endif
