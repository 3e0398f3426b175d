/*
 * Network: what an interface that came with a module does when it is exercised.
 *
 * It is brought up, frames of an ethertype that nobody speaks are sent through it, its statistics are read, and it is
 * brought down again.  IPv6 is off, so that the kernel does not send anything on its own.
 */
#include "network.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/if_ether.h>
#include <netpacket/packet.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "report.h"

#define INTERFACES "/sys/class/net"
#define MAX_INTERFACES 64
#define EXPERIMENTAL 0x88b5	/* IEEE 802: for experiments */
#define PATIENCE 200		/* how many times 10 ms an interface may take to have a carrier */

static char old[MAX_INTERFACES][IFNAMSIZ];
static int old_count;

static int is_old(const char *name)
{
	for (int i = 0; i < old_count; i++)
		if (!strcmp(old[i], name))
			return 1;
	return 0;
}

/* Remembers the interfaces that no module brought, and keeps IPv6 off the others.  A kernel may have no network. */
void note_interfaces(void)
{
	DIR *interfaces = opendir(INTERFACES);
	struct dirent *entry;

	if (!interfaces) {
		if (errno != ENOENT)
			failed("interfaces", errno);
		return;
	}
	put("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
	while (old_count < MAX_INTERFACES && (entry = readdir(interfaces)))
		snprintf(old[old_count++], IFNAMSIZ, "%.*s", IFNAMSIZ - 1, entry->d_name);
	closedir(interfaces);
}

static void step_failed(const char *step, const char *name, int error)
{
	char both[512];

	snprintf(both, sizeof(both), "%s.%s", step, name);
	failed(both, error);
}

/* Returns 0 or the errno of bringing the interface up or down. */
static int turn(int fd, const char *name, int up)
{
	struct ifreq request = {0};

	snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
	if (ioctl(fd, SIOCGIFFLAGS, &request))
		return errno;
	request.ifr_flags = up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &request) ? errno : 0;
}

/*
 * Returns how many frames the driver was given.  They bypass the queue: it would drop them without a word while it is
 * being set up, whereas the driver's own door says ENOBUFS until there is a carrier.
 */
static unsigned send_frames(int fd, const char *name)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET, .sll_protocol = htons(EXPERIMENTAL), .sll_ifindex = if_nametoindex(name),
	};
	unsigned char frame[ETH_ZLEN] = {0};
	unsigned sent = 0;
	int bypass = 1;

	if (setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &bypass, sizeof(bypass))) {
		step_failed("bypass", name, errno);
		return 0;
	}
	memset(frame, 0xff, ETH_ALEN);
	frame[ETH_ALEN] = 2;	/* from 02:00:00:00:00:00, a local address */
	frame[12] = EXPERIMENTAL >> 8;
	frame[13] = EXPERIMENTAL & 0xff;
	for (int patience = PATIENCE; sent < FRAMES;) {
		if (sendto(fd, frame, sizeof(frame), 0, (struct sockaddr *)&to, sizeof(to)) == sizeof(frame)) {
			sent++;
		} else if (errno != ENOBUFS || !patience--) {
			step_failed("send", name, errno);
			break;
		} else {
			usleep(10000);
		}
	}
	return sent;
}

/* The kernel asks the driver for the numbers behind this file. */
static void read_statistics(const char *name)
{
	char path[PATH_MAX], value[32];
	int fd;

	snprintf(path, sizeof(path), INTERFACES "/%s/statistics/tx_packets", name);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, value, sizeof(value)) < 0)
		step_failed("statistics", name, errno);
	if (fd >= 0)
		close(fd);
}

static unsigned exercise(const char *name)
{
	int fd = socket(AF_PACKET, SOCK_RAW, 0), error;
	unsigned sent = 0;

	if (fd < 0) {
		step_failed("socket", name, errno);
		return 0;
	}
	error = turn(fd, name, 1);
	if (error)
		step_failed("up", name, error);
	else
		sent = send_frames(fd, name);
	read_statistics(name);
	error = turn(fd, name, 0);
	if (error)
		step_failed("down", name, error);
	close(fd);
	return sent;
}

/* Returns how many frames the drivers of all interfaces that came with the modules took. */
unsigned exercise_interfaces(void)
{
	DIR *interfaces = opendir(INTERFACES);
	struct dirent *entry;
	unsigned sent = 0;

	if (!interfaces) {
		failed("interfaces", errno);
		return 0;
	}
	while ((entry = readdir(interfaces)))
		if (!is_old(entry->d_name))
			sent += exercise(entry->d_name);
	closedir(interfaces);
	return sent;
}
