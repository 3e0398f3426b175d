extern int g;
int without_one(int a) { return a ^ g; }
int without_two(int a) { return a | g; }
