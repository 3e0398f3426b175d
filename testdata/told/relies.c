/* What a compiler lets callers keep over a call of a function that has its site by an attribute alone. */
#define SITE __attribute__((noinline, patchable_function_entry(2)))
typedef struct { long a, b; } pair;

static SITE long leaf(long a) { return a * 3 + 7; }
static SITE void store(long *p) { *p = 7; }
static SITE pair same(pair p) { return p; }
extern long other(long);
static SITE long calls(long a) { return other(a) + 1; }
static SITE __attribute__((noreturn)) void never(long *p) { for (;;) *(volatile long *)p = 1; }

/* x1 to x6 */
long big(long *p) { long a=p[0],b=p[1],c=p[2],d=p[3],e=p[4],f=p[5]; long r=leaf(a+1); return r+a*b+c*d+e*f; }
/* nothing that can be told: a function that returns its two arguments would not write d0 and d1 either */
double floats(long *p, double x, double y) { store(p); return x * y; }
/* nothing: both are the result */
long twice(long a, long b) { pair p = same((pair){a, b}); return p.a + p.b; }
/* nothing: the callee calls another unit */
long saved(long a, long b) { return calls(a) * b; }
/* nothing: nothing runs behind the call */
long stops(long *p, long k) { if (k) never(p); return p[k + 1] * k; }
/* a branch behind the call, and x1 on one side of it */
long either(long a, long b, long *p) { return leaf(a) > 100 ? b + 3 : p[1]; }
/* x1 to x12, of which the words of an enabled site change x9 themselves */
long wide(long *p)
{
	long a=p[0],b=p[1],c=p[2],d=p[3],e=p[4],f=p[5],h=p[6],i=p[7],j=p[8],k=p[9],l=p[10],m=p[11];
	return leaf(a+1) + a*b+c*d+e*f+h*i+j*k+l*m;
}
