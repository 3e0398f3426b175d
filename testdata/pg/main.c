/* Calls all of work.c; prints what came of it, and how often the tracer and the profiling function were called. */
#include <stdio.h>

struct nine {
	long v[9];
};

int outer(int), nested(int), rarely(int), tail(int), depth(int), starts(int);
long many(long, long, long, long, long, long, long, long, long, long), summed(int, ...);
double mixed(double, float, long, long double);
struct nine made(int, double);
long traced, profiled;

int outside(int a)
{
	return a ^ 21;
}

int main(void)
{
	long sum = 0;

	for (int i = 0; i < 100; i++) {
		struct nine nine = made(i, 2.5 * i);

		sum += outer(i) + nested(i) + rarely(i) + tail(i) + depth(i) + starts(i);
		sum += many(i, 1, 2, 3, 4, 5, 6, 7, 8, i) + summed(4, (long)i, 2L, 3L, 4L) + nine.v[0] + nine.v[1];
		sum += (long)mixed(1.5, 2.0f, i, 3.0L);
	}
	printf("%ld traced %ld profiled %ld\n", sum, traced, profiled);
	return 0;
}
