// SPDX-License-Identifier: GPL-2.0
/*
 * inwit_tsm - a simulated attestation provider for test guests
 *
 * A guest under plain QEMU has no security processor. This module registers
 * with the kernel's own report core (tsm.ko, Linux 6.12) under the name of a
 * real driver, so that user space meets the genuine configfs ABI, and passes
 * each request to a simulated machine on the host. The mailbox between them is
 * a second 16550 UART, driven by polling: it needs no other driver and is there
 * before any transport of the guest's own.
 *
 * The host end holds keys and measurements, as the security processor does;
 * this side contributes report data and privilege level and believes nothing
 * of the answer but its framing. Never part of a product image: it taints the
 * kernel and says so.
 *
 * Integers are big-endian.
 *
 *   request  "IWQ1" u32 sequence, u8 provider, u8 privlevel, u16 length, report data
 *   answer   "IWA1" u32 sequence, u32 errno, u32 out length, u32 aux length, out, aux
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/errno.h>
#include <linux/io.h>
#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/serial_reg.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/tsm.h>
#include <linux/unaligned.h>

#define REPORT_DATA_LEN		64
#define REQUEST_HEADER_LEN	12
#define ANSWER_HEADER_LEN	20
#define MAGIC_LEN		4

#define PROVIDER_SEV		1
#define PROVIDER_TDX		2

static const u8 request_magic[MAGIC_LEN] = { 'I', 'W', 'Q', '1' };
static const u8 answer_magic[MAGIC_LEN] = { 'I', 'W', 'A', '1' };

/* Which driver to stand in for when the loader gives no parameter; the build may set another. */
#ifndef INWIT_PROVIDER
#define INWIT_PROVIDER "sev_guest"
#endif

static char *provider = INWIT_PROVIDER;
module_param(provider, charp, 0444);
MODULE_PARM_DESC(provider, "driver to stand in for: sev_guest or tdx_guest");

static ushort iobase = 0x2f8;
module_param(iobase, ushort, 0444);
MODULE_PARM_DESC(iobase, "first I/O port of the mailbox UART");

static uint timeout_ms = 30000;
module_param(timeout_ms, uint, 0444);
MODULE_PARM_DESC(timeout_ms, "how long one request may take");

/* One request at a time, as with a real mailbox. Also guards the sequence. */
static DEFINE_MUTEX(mailbox_lock);
static u32 last_sequence;
static u8 provider_code;

/* Waits until the line status shows one of these bits. */
static int uart_wait(u8 bits, unsigned long deadline)
{
	unsigned int tries = 0;

	while (!(inb(iobase + UART_LSR) & bits)) {
		if (time_after(jiffies, deadline))
			return -ETIMEDOUT;
		if (fatal_signal_pending(current))
			return -EINTR;
		/* The next byte is near most of the time: spin first, sleep later. */
		if (++tries < 64)
			cpu_relax();
		else
			usleep_range(20, 100);
	}
	return 0;
}

static int uart_send(const u8 *bytes, size_t count, unsigned long deadline)
{
	int rc = 0;

	for (; count && !rc; count--) {
		rc = uart_wait(UART_LSR_THRE, deadline);
		if (!rc)
			outb(*bytes++, iobase + UART_TX);
	}
	return rc;
}

static int uart_receive(u8 *bytes, size_t count, unsigned long deadline)
{
	int rc = 0;

	for (; count && !rc; count--) {
		rc = uart_wait(UART_LSR_DR, deadline);
		if (!rc)
			*bytes++ = inb(iobase + UART_RX);
	}
	return rc;
}

/*
 * Reads up to the header of the answer to this request. Bytes of an older
 * answer, given up on after its timeout, may still come first.
 */
static int receive_answer_header(u8 *header, u32 sequence, unsigned long deadline)
{
	int rc;

	do {
		rc = uart_receive(header, MAGIC_LEN, deadline);
		while (!rc && memcmp(header, answer_magic, MAGIC_LEN)) {
			memmove(header, header + 1, MAGIC_LEN - 1);
			rc = uart_receive(header + MAGIC_LEN - 1, 1, deadline);
		}
		if (!rc)
			rc = uart_receive(header + MAGIC_LEN, ANSWER_HEADER_LEN - MAGIC_LEN, deadline);
	} while (!rc && get_unaligned_be32(header + 4) != sequence);
	return rc;
}

/* An empty blob is an answer too, so it gets an address. */
static int receive_blob(u8 **blob, size_t length, unsigned long deadline)
{
	u8 *bytes = kvzalloc(max_t(size_t, length, 1), GFP_KERNEL);
	int rc;

	if (!bytes)
		return -ENOMEM;
	rc = uart_receive(bytes, length, deadline);
	if (rc) {
		kvfree(bytes);
		return rc;
	}
	*blob = bytes;
	return 0;
}

static int send_request(const struct tsm_desc *desc, u32 sequence, unsigned long deadline)
{
	u8 header[REQUEST_HEADER_LEN];
	int rc;

	memcpy(header, request_magic, MAGIC_LEN);
	put_unaligned_be32(sequence, header + 4);
	header[8] = provider_code;
	header[9] = desc->privlevel;
	put_unaligned_be16(desc->inblob_len, header + 10);
	rc = uart_send(header, sizeof(header), deadline);
	return rc ? rc : uart_send(desc->inblob, desc->inblob_len, deadline);
}

static int inwit_report_new(struct tsm_report *report, void *data)
{
	unsigned long deadline = jiffies + msecs_to_jiffies(timeout_ms);
	u8 header[ANSWER_HEADER_LEN];
	u8 *outblob = NULL, *auxblob = NULL;
	u32 failure, out_len, aux_len;
	int rc;

	/* Both real drivers refuse any other length, with this number. */
	if (report->desc.inblob_len != REPORT_DATA_LEN)
		return -EINVAL;

	guard(mutex)(&mailbox_lock);
	last_sequence++;
	rc = send_request(&report->desc, last_sequence, deadline);
	if (!rc)
		rc = receive_answer_header(header, last_sequence, deadline);
	if (rc)
		return rc;

	failure = get_unaligned_be32(header + 8);
	if (failure)
		return failure < MAX_ERRNO ? -(int)failure : -EIO;
	out_len = get_unaligned_be32(header + 12);
	aux_len = get_unaligned_be32(header + 16);
	if (out_len > TSM_OUTBLOB_MAX || aux_len > TSM_OUTBLOB_MAX)
		return -EFBIG;

	rc = receive_blob(&outblob, out_len, deadline);
	if (!rc && aux_len)
		rc = receive_blob(&auxblob, aux_len, deadline);
	if (rc) {
		kvfree(outblob);
		return rc;
	}
	report->outblob = outblob;
	report->outblob_len = out_len;
	report->auxblob = auxblob;
	report->auxblob_len = aux_len;
	return 0;
}

/* The same files as the real drivers show; service attributes need an SVSM. */
static bool inwit_attr_visible(int n)
{
	switch (n) {
	case TSM_REPORT_GENERATION:
	case TSM_REPORT_PROVIDER:
		return true;
	case TSM_REPORT_PRIVLEVEL:
	case TSM_REPORT_PRIVLEVEL_FLOOR:
		return provider_code == PROVIDER_SEV;
	default:
		return false;
	}
}

static bool inwit_bin_attr_visible(int n)
{
	switch (n) {
	case TSM_REPORT_INBLOB:
	case TSM_REPORT_OUTBLOB:
		return true;
	case TSM_REPORT_AUXBLOB:
		return provider_code == PROVIDER_SEV;
	default:
		return false;
	}
}

static struct tsm_ops inwit_ops = {
	.report_new = inwit_report_new,
	.report_attr_visible = inwit_attr_visible,
	.report_bin_attr_visible = inwit_bin_attr_visible,
};

/*
 * The ports are not claimed: the kernel's own serial driver has found the UART
 * at boot and holds the region, but nobody opens that tty.
 */
static int uart_prepare(void)
{
	outb(0, iobase + UART_IER);
	outb(UART_LCR_WLEN8, iobase + UART_LCR);
	outb(UART_MCR_DTR | UART_MCR_RTS, iobase + UART_MCR);
	outb(UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT, iobase + UART_FCR);
	/* A port without a device floats high. */
	return inb(iobase + UART_LSR) == 0xff ? -ENODEV : 0;
}

static int __init inwit_tsm_init(void)
{
	int rc;

	if (!strcmp(provider, "sev_guest")) {
		provider_code = PROVIDER_SEV;
		inwit_ops.name = "sev_guest";
	} else if (!strcmp(provider, "tdx_guest")) {
		provider_code = PROVIDER_TDX;
		inwit_ops.name = "tdx_guest";
	} else {
		pr_err("provider must be sev_guest or tdx_guest\n");
		return -EINVAL;
	}
	rc = uart_prepare();
	if (rc) {
		pr_err("no UART at port %#x\n", iobase);
		return rc;
	}
	pr_warn("SIMULATED %s: this is not a confidential machine\n", inwit_ops.name);
	return tsm_register(&inwit_ops, NULL);
}

static void __exit inwit_tsm_exit(void)
{
	tsm_unregister(&inwit_ops);
}

module_init(inwit_tsm_init);
module_exit(inwit_tsm_exit);
MODULE_DESCRIPTION("Simulated attestation provider for test guests");
MODULE_LICENSE("GPL");
