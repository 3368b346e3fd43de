/* The Python interpreter under a sanitizer's run-time library, which must be in the program before any other. */
#include <Python.h>

int main(int argc, char **argv) { return Py_BytesMain(argc, argv); }
