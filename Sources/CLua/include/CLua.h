// The umbrella header of CLua: Lua 5.4's own headers and the bridge above them.
#ifndef MOONPORT_CLUA_H
#define MOONPORT_CLUA_H

#include <lua5.4/lauxlib.h>
#include <lua5.4/lua.h>
#include <lua5.4/lualib.h>

#include "bridge.h"

#endif
