template <class T> T twice(T x) { return x * 2; }
inline int common(int x) { static int n; return n += x; }
extern int (*pick)(int), (*pick_too)(int);
