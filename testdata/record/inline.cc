// An inline function has a COMDAT group: another object may have it, and a linker keeps one.
int elsewhere(int);
inline int shared(int a) { return elsewhere(a) + 1; }
int own(int a) { return shared(a) + 2; }
