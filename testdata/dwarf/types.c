/* Prototypes of every kind: the tests spell them out. */
typedef unsigned int u32;
typedef unsigned long size_t;
typedef _Bool bool;
struct file;
struct pair { long first, second; };
struct triple { long first, second, third; };
union word { int number; char bytes[4]; };
enum colour { RED, GREEN };
typedef struct { unsigned long pgd; } pgd_t;
typedef int (*compare_t)(const void *, const void *);
typedef __builtin_va_list va_list;

#define EXPORTED __attribute__((noinline, noclone, noipa))
struct file *last;

EXPORTED void nothing(void) { last = 0; }
EXPORTED long numbers(char c, short s, u32 u, long long w, bool b, enum colour e) { return c + s + u + w + b + e; }
EXPORTED size_t pointers(struct file *file, const char *text, char **more, void *any, const struct pair *const p)
{
	last = file;
	return text[0] + more[0][0] + (any == 0) + p->first;
}
EXPORTED int calls(compare_t compare, int (*other)(struct file *, ...), int table[4], int (*rows)[3])
{
	return compare(table, rows) + other(last);
}
EXPORTED struct triple by_value(struct pair pair, struct triple triple, union word word, pgd_t pgd, __int128 wide)
{
	triple.first += pair.first + word.number + (long)pgd.pgd + (long)wide;
	return triple;
}
EXPORTED long many(long a, long b, long c, long d, long e, long f, long g, long h, long i) { return a + b + c + d + e + f + g + h + i; }
EXPORTED int text(const char *format, ...) { return format[0]; }
EXPORTED void forever(void) __attribute__((noreturn));
EXPORTED void forever(void) { for (;;) last = 0; }
EXPORTED int old(a) int a; { return a + 1; }

static inline int helper(int x) { return x * 3 + (last != 0); }
static int __attribute__((noinline)) cloned(int x, int unused) { return helper(x) + 7; }
EXPORTED int first_user(int x) { return helper(x) + helper(x + 1) + cloned(x, 1); }
EXPORTED int second_user(int x) { return helper(x) + cloned(x, 2); }
int shared(int x) { return x * 5 + (last != 0); }
EXPORTED int third_user(int x) { return shared(x) ^ x; }
EXPORTED int (*take(int which))(int) { return which ? helper : 0; }
int same(int x) { return x * 5 + (last != 0); }
