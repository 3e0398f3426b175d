/*
 * A replacement for zram's initstate_show that calls another function of zram, and looks whether it can still reach its
 * own data: ppc64le finds them through r2, which every function of the module must get back as it was.
 *
 * io_stat_show is meant to be redirected to the kernel's device_show_int, which prints what an attribute points at.
 */
struct device;

struct device_attribute {
	const char *name;
	unsigned short mode;
	void *show, *store;
};

struct dev_ext_attribute {
	struct device_attribute attr;
	void *var;
};

int sprintf(char *buf, const char *format, ...);
long io_stat_show(struct device *dev, struct device_attribute *attr, char *buf);	/* in zram_drv.c, static */

static volatile int answer = 42;
static volatile unsigned long kept = 0x6b657074;

long patched_initstate_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct dev_ext_attribute own = { .var = (void *)&answer };
	long end = io_stat_show(dev, &own.attr, buf) - 1;

	(void)attr;
	return end + sprintf(buf + end, kept == 0x6b657074 ? ", data reached\n" : ", data lost\n");
}
