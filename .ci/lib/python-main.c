/* CPython's own main program but for one line. The library comes from Debian,
   which freezes its patched site.py (dist-packages, a second prefix) into it;
   the files beside it are upstream's, as in the official image. */
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
