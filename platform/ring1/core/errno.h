/* Error numbers, as platform.h's functions return them negated; there is no libc here. */
#ifndef PLATFORM_RING1_CORE_ERRNO_H
#define PLATFORM_RING1_CORE_ERRNO_H

#define ENOMEM 12
#define EINVAL 22

#endif
