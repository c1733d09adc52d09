// The form of packed plain data, which plain.c writes and unpack.c reads: a packed value is a tag and what belongs to it. An integer
// is a zigzag varint, a float its 8 bytes, a string a varint length and its bytes, a table two 4-byte counts (of its sequence and of
// its other pairs), the sequence's values, then key and value of each pair. A list is a varint count and that many values. Numbers
// have this machine's byte order: packed values stay in the program.
#ifndef MOONPORT_BRIDGE_PLAIN_H
#define MOONPORT_BRIDGE_PLAIN_H

enum { TAG_NIL = 0, TAG_FALSE, TAG_TRUE, TAG_INTEGER, TAG_NUMBER, TAG_STRING, TAG_TABLE };

#endif
