/* CPython's main program, with frozen modules disabled. libpython comes from
   Debian, which freezes its own site.py (with dist-packages and a second
   prefix) into it. The official image, like this one, uses upstream's site.py. */
#include <Python.h>

int main(int argc, char **argv)
{
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.use_frozen_modules = 0;
    PyStatus status = PyConfig_SetBytesArgv(&config, argc, argv);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
    return Py_RunMain();
}
