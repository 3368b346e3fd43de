/* libFuzzer around the interpreter: `fuzz.calls.run` gets the bytes, and the compiled module, built with the same
   sanitizers, tells what it reached. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyObject *run;

static void give_up(void) {
    PyErr_Print();
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    Py_InitializeEx(0);
    PyObject *module = PyImport_ImportModule("fuzz.calls");
    if (!module) give_up();
    run = PyObject_GetAttrString(module, "run");
    if (!run) give_up();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    PyObject *verdict = PyObject_CallFunction(run, "y#", (const char *)data, (Py_ssize_t)size);
    if (!verdict) give_up();
    Py_DECREF(verdict);
    return 0;
}
