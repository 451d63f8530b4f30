package radius

import "syscall"

const sysSendmmsg = syscall.SYS_SENDMMSG
