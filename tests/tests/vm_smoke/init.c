/* The smoke test's PID 1: says hello, tries each device that is there, powers off. Trusts nothing and keeps no secret;
 * it never reads its command line. Built statically while the test runs; never part of an image that ships. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As in the kernel's vm_sockets.h, which comes with no C library. */
struct vsock_address {
	unsigned short family, reserved;
	unsigned int port, cid;
	unsigned char zero[4];
};

static void say(const char *what, const char *value)
{
	char line[256];
	int n = snprintf(line, sizeof line, "SMOKE %s %s\n", what, value);
	write(1, line, n);
}

/* A file's first line. */
static int first_line(const char *path, char *line, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, line, size - 1);
	if (fd >= 0)
		close(fd);
	if (n < 0)
		return -1;
	line[n] = 0;
	line[strcspn(line, "\n")] = 0;
	return 0;
}

/* /mod/00.ko, /mod/01.ko … in this order. */
static void load_modules(void)
{
	char path[32];
	for (int i = 0; i < 100; i++) {
		snprintf(path, sizeof path, "/mod/%02d.ko", i);
		int fd = open(path, O_RDONLY);
		if (fd < 0)
			return;
		if (syscall(SYS_finit_module, fd, "", 0))
			say("not-loaded", path);
		close(fd);
	}
}

/* Sends a line to the host's port 1234 and shows what comes back. */
static void try_vsock(void)
{
	char answer[64] = "";
	struct vsock_address host = { .family = AF_VSOCK, .port = 1234, .cid = 2 };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (fd < 0)
		return;
	if (connect(fd, (struct sockaddr *)&host, sizeof host) || write(fd, "from the guest\n", 15) != 15)
		say("vsock", "refused");
	else if (read(fd, answer, sizeof answer - 1) > 0)
		say("vsock", answer);
	close(fd);
}

int main(void)
{
	char line[128];
	say("hello", "from PID 1");
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("sysfs", "/sys", "sysfs", 0, 0);
	mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
	load_modules();
	if (!first_line("/sys/class/tpm/tpm0/pcr-sha256/9", line, sizeof line))
		say("pcr9", line);
	if (!first_line("/dev/vda", line, sizeof line))
		say("disk", line);
	int port = open("/dev/ttyS1", O_RDWR | O_NOCTTY);
	if (port >= 0)
		write(port, "mailbox\n", 8);
	try_vsock();
	if (access("/panic", F_OK) == 0)
		return 1;
	sync();
	reboot(RB_POWER_OFF);
	return 1;
}
