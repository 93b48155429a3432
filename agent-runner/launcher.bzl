"""A rule that makes a shell script runnable. Since Bazel 8, `sh_binary` has to be downloaded."""

def _launcher_impl(ctx):
    launcher = ctx.actions.declare_file(ctx.label.name + ".sh")
    ctx.actions.write(
        launcher,
        # Run the script in the checkout, not a copy in Bazel's cache: it needs Poetry's files and
        # the `.env` beside it.
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
