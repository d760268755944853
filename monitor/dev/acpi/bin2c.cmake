# cmake -DIN=file -DOUT=file.c -DNAME=symbol -P bin2c.cmake: a file as a C table.
file(READ ${IN} hex HEX)
string(LENGTH ${hex} digits)
math(EXPR bytes "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1, " table ${hex})
string(REGEX REPLACE "((0x[0-9a-f][0-9a-f], )(0x[0-9a-f][0-9a-f], )?(0x[0-9a-f][0-9a-f], )?(0x[0-9a-f][0-9a-f], )?(0x[0-9a-f][0-9a-f], )?(0x[0-9a-f][0-9a-f], )?(0x[0-9a-f][0-9a-f], )?(0x[0-9a-f][0-9a-f], )?)"
    "    \\1\n" table ${table})
file(WRITE ${OUT} "#include <stdint.h>\n\n#include \"monitor/dev/acpi/dsdt.h\"\n\nconst uint8_t ${NAME}[] = {\n${table}};\nconst uint32_t ${NAME}_bytes = ${bytes};\n")
