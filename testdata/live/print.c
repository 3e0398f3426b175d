/* Comes along with `redirect --with`, and has a patch site as the module has them. */
extern int _printk(const char *fmt, ...);

int printed_cmdline(int a)
{
	return _printk("cmdline %d\n", a) + 1;
}
