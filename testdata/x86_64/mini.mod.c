/* What modpost would generate for mini.ko. */
#define INFO(n, s) static const char info_##n[] \
	__attribute__((section(".modinfo"), used, aligned(1))) = s

INFO(0, "license=GPL");
INFO(1, "description=ftpatch fixture");
INFO(2, "depends=");
INFO(3, "name=mini");
INFO(4, "vermagic=0.0.0-x86 SMP mod_unload ");

int init_module(void);
void cleanup_module(void);

/* Not any kernel's struct module: only a place with the two relocations. */
struct module {
	int state;
	void *list[2];
	char name[56];
	int (*init)(void);
	char body[256];
	void (*exit)(void);
	char tail[40];
} __attribute__((aligned(64)));

__attribute__((section(".gnu.linkonce.this_module"), used))
struct module __this_module = {
	.name = "mini",
	.init = init_module,
	.exit = cleanup_module,
};
