// The GNU functions that the tests need and Swift's Glibc leaves out, since it is built without _GNU_SOURCE.
#ifndef MOONPORT_TEST_SUPPORT_H
#define MOONPORT_TEST_SUPPORT_H

#include <spawn.h>

/// posix_spawn_file_actions_addclosefrom_np(3): the child has no descriptor from `first` on.
int test_spawn_close_from(posix_spawn_file_actions_t *actions, int first);

/// posix_spawn_file_actions_addchdir_np(3): the child runs in `folder`.
int test_spawn_change_folder(posix_spawn_file_actions_t *actions, const char *folder);

/// Opens a pseudo-terminal, close-on-exec and nobody's controlling terminal: its own side, or -1 and errno.
/// The path of the other side goes to `name` of `capacity` bytes.
int test_open_terminal(char *name, unsigned long capacity);

#endif
