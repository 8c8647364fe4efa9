// What the environment says.
#pragma once

// The directory that a variable names, borrowed. Absolute, as the XDG specification wants it; anything else counts as
// not set: NULL.
const char *gd_environment_directory(const char *variable);
