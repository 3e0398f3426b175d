/*
 * A replacement for zram's disksize_show: what the function says itself, and zram's block major.
 *
 * It uses a static variable of zram, an export of the kernel, a string of its own, and the old function under the name
 * that --keep-original gives it.
 */
struct device;
struct device_attribute;

extern int zram_major;	/* in zram_drv.c, static */
int sprintf(char *buf, const char *format, ...);
long original_disksize_show(struct device *dev, struct device_attribute *attr, char *buf);

long patched_disksize_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	long end = original_disksize_show(dev, attr, buf) - 1;	/* without its newline */

	return end + sprintf(buf + end, " bytes, block major %d\n", zram_major);
}
