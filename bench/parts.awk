# Reads the output of `tar -tv`, and prints the size of each part of the image. A file belongs to the
# first part that matches.

function part(path) {
    if (path ~ /site-packages\/temporalio\/bridge\/.*\.so/) return "temporalio's native bridge"
    if (path ~ /site-packages\/temporalio\//) return "temporalio, the rest"
    if (path ~ /site-packages\/pydantic_core\//) return "pydantic_core"
    if (path ~ /site-packages\/pydantic/) return "pydantic, pydantic-settings"
    if (path ~ /site-packages\/google\//) return "protobuf"
    if (path ~ /site-packages\//) return "other packages"
    if (path ~ /^app\//) return "the runner's own code"
    if (path ~ /\/lib-dynload\//) return "standard library, native modules"
    if (path ~ /lib\/python3\.11\/.*\.pyc$/) return "standard library, bytecode"
    if (path ~ /lib\/python3\.11\//) return "standard library, sources"
    if (path ~ /libpython3|bin\/python3/) return "the interpreter"
    if (path ~ /zoneinfo/) return "time zones"
    if (path ~ /lib(ssl|crypto)\.so/) return "OpenSSL"
    if (path ~ /\/ca-certificates|etc\/ssl/) return "CA certificates"
    if (path ~ /(^|\/)s?bin\//) return "shell and tools"
    if (path ~ /\.so/) return "C library and the like"
    return "everything else"
}

# Each entry has a header of 512 bytes. Only files have content, which fills whole blocks.
{
    path = $6
    sub(/^\.\//, "", path)
    size = ($1 ~ /^-/) ? int(($3 + 511) / 512) * 512 : 0
    bytes[part(path)] += size
    headers += 512
}

END {
    for (name in bytes) printf "%d\t%s\n", bytes[name], name
    printf "%d\t%s\n", headers, "tar's own headers"
}
