/* A live patch of two functions of the kernel and one of a module, as samples/livepatch writes it. */
struct klp_func { const char *old_name; void *new_func; unsigned long old_sympos; void *rest[12]; };
struct klp_object { const char *name; struct klp_func *funcs; void *callbacks[4]; void *rest[10]; };
struct klp_patch { void *mod; struct klp_object *objs; void *rest[12]; };

/* What the loader replaces by room for its stubs. */
#ifdef __aarch64__
asm(".pushsection .plt,\"ax\"\n\t.byte 0\n\t.popsection\n\t.pushsection .init.plt,\"ax\"\n\t.byte 0\n"
    "\t.popsection\n\t.pushsection .text.ftrace_trampoline,\"ax\"\n\t.byte 0\n\t.popsection");
#else
asm(".pushsection .stubs,\"ax\",@nobits\n\t.balign 8\n\t.popsection");
#endif

extern char __this_module[];
extern int hidden_counter;	/* resolved by a .klp.rela section */
extern int _printk(const char *fmt, ...);

__attribute__((noinline)) int live_uptime(int a)
{
	return a + hidden_counter;
}

__attribute__((noinline)) int live_cmdline(int a)
{
	return _printk("live %d\n", a);
}

static __attribute__((noinline)) int live_xmit(int a)
{
	return live_uptime(a) * 2;
}

static int about_to(void *object)
{
	return !object;
}

static struct klp_func funcs[] = {
	{ .old_name = "uptime_proc_show", .new_func = live_uptime },
	{ .old_name = "cmdline_proc_show", .new_func = live_cmdline, .old_sympos = 2 },
	{ }
};
static struct klp_func dummy_funcs[] = {
	{ .old_name = "dummy_xmit", .new_func = live_xmit },
	{ }
};
static struct klp_object objs[] = {
	{ .funcs = funcs, .callbacks = { about_to } },
	{ .name = "dummy", .funcs = dummy_funcs },
	{ }
};
static struct klp_patch patch = { .mod = __this_module, .objs = objs };

int klp_enable_patch(struct klp_patch *patch);
int init_module(void)
{
	return klp_enable_patch(&patch);
}

static const char info[] __attribute__((section(".modinfo"), used)) =
	"license=GPL\0livepatch=Y\0name=live\0vermagic=6.12.0 SMP mod_unload aarch64";
static char module[64] __attribute__((section(".gnu.linkonce.this_module"), used));
