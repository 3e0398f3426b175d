extern int g;
int small_one(int a) { return a & g; }
