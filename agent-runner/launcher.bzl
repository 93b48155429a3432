"""A rule of our own, for Bazel's own rules for shell scripts have to be downloaded since Bazel 8."""

def _launcher_impl(ctx):
    launcher = ctx.actions.declare_file(ctx.label.name + ".sh")
    ctx.actions.write(
        launcher,
        # Poetry and the settings' .env belong to the checkout, not to a copy in Bazel's cache.
        "#!/bin/sh\nexec \"${{BUILD_WORKSPACE_DIRECTORY:?use bazel run}}/{}/{}\" \"$@\"\n".format(
            ctx.label.package,
            ctx.attr.script,
        ),
        is_executable = True,
    )
    return [DefaultInfo(executable = launcher)]

launcher = rule(
    implementation = _launcher_impl,
    attrs = {"script": attr.string(mandatory = True, doc = "The script in the checkout to run.")},
    doc = "Makes a script of the checkout runnable with `bazel run`.",
    executable = True,
)
