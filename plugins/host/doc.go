// Package host runs plugins: programs that hold a [plugins.Driver]. A [Plugin] is
// a Driver itself. It starts its program when it is first called, and again when
// that has died, and configures it again.
//
//	found, err := host.Find("/usr/lib/aovlb/plugins")
//	lock, err := host.ReadLock("/etc/aovlb/plugins.lock")
//	p, err := lock.Plugin(found, "kemp")
//	p.Logger = logger
//	defer p.Close()
//	err = p.Configure(ctx, config)
//
// What a plugin gets is little: an environment of its own with the variables that
// were named, a private folder for its socket, TLS with certificates made for this
// one start, and limits of the operating system. It runs only if its content is
// what was pinned. When the program that hosts it ends, even by kill -9, it ends
// too.
package host
