/* SPDX-License-Identifier: MIT */
/* The tls-creds-x509 and tls-creds-psk objects: credentials of the nbd driver, by -object. */
#ifndef FERRY_DEVICE_TLS_OBJECT_H
#define FERRY_DEVICE_TLS_OBJECT_H

#include "device/device.h"

extern const struct device_type tls_creds_x509_type;
extern const struct device_type tls_creds_psk_type;

#endif
