package radius

const sysSendmmsg = 307 // it is younger than the list in package syscall
