package profilexml

import "net/netip"

// deviceRules are about device tunnels and LockDown.
func deviceRules() []Rule {
	return []Rule{
		{
			ID: "AOV601", Severity: Error, Title: "A device tunnel isn't IKEv2",
			Why:    "Windows makes device tunnels by IKEv2 only.",
			Remedy: "Set NativeProtocolType to IKEv2.",
			run:    checkDeviceProtocol,
		},
		{
			ID: "AOV602", Severity: Error, Title: "A device tunnel doesn't use the computer's certificate",
			Why:    "Before anybody has logged on there is nothing else to authenticate with.",
			Remedy: "Set MachineMethod to Certificate, without UserMethod and Eap.",
			run:    checkDeviceMethod,
		},
		{
			ID: "AOV603", Severity: Error, Title: "A device tunnel is a force tunnel",
			Why:    "Windows doesn't support ForceTunnel in a device tunnel.",
			Remedy: "Use SplitTunnel with a Route for each server that is needed before logon.",
			run:    checkDeviceForce,
		},
		{
			ID: "AOV604", Severity: Warning, Title: "Traffic filters of a device tunnel block inbound traffic",
			Why:    "Before Windows 10 2004 traffic filters have no direction, and a device tunnel with filters can't be managed from inside.",
			Remedy: "Do without the filters, or without clients that old.",
			run:    checkDeviceFilters,
		},
		{
			ID: "AOV605", Severity: Info, Title: "A device tunnel reaches whole networks",
			Why:    "A device tunnel is for what computers need before logon: domain controllers, updates, management. With routes to whole networks the user tunnel's traffic may go through it.",
			Remedy: "Make a Route to each server.",
			run:    checkDeviceRoutes,
		},
		{
			ID: "AOV606", Severity: Warning, Title: "LockDown cuts the computer off if it doesn't work",
			Why:    "Nothing but this VPN may be used, it can't be disconnected, and no other profile can be used. A gateway that is down, or a certificate that has expired, leaves the computer without a network.",
			Remedy: "Try it on a computer that you can reach otherwise. To take it off, use Remove-LockDownVPN, or delete the profile as SYSTEM.",
			run:    checkLockDown,
		},
		{
			ID: "AOV607", Severity: Error, Title: "LockDown isn't IKEv2 with the computer's certificate",
			Why:    "LockDown starts with the computer, when there is no user, and works with IKEv2 and a machine certificate.",
			Remedy: "Set NativeProtocolType to IKEv2 and MachineMethod to Certificate.",
			run:    checkLockDownMethod,
		},
		{
			ID: "AOV608", Severity: Error, Title: "A profile is both a device tunnel and LockDown",
			Why:    "They are two kinds of profile: a device tunnel stands beside a user tunnel, and LockDown alone.",
			Remedy: "Remove one.",
			run:    checkDeviceLockDown,
		},
		{
			ID: "AOV609", Severity: Warning, Title: "The computer's certificate is used without DeviceTunnel",
			Why:    "MachineMethod Certificate without DeviceTunnel makes a connection for all users with the computer's certificate. It isn't there before logon.",
			Remedy: "Add DeviceTunnel, if it is to be one.",
			run:    checkMachineWithout,
		},
		{
			ID: "AOV610", Severity: Info, Title: "A device tunnel needs Windows Enterprise or Education",
			Why:    "Pro makes the connection and never connects it. Computers that get Enterprise by subscription are Pro until the first user has logged on.",
			Remedy: "Deliver device tunnels to computers with these editions.",
			run:    checkEdition,
		},
	}
}

func checkEdition(k *check) {
	if k.isDevice() {
		k.report(k.root.child("DeviceTunnel"), nil, "it works on the editions Enterprise and Education only")
	}
}

func checkDeviceProtocol(k *check) {
	if n := k.native.child("NativeProtocolType"); k.isDevice() && n != nil && k.protocol() != "IKEv2" {
		k.reportValue(n, nil, "a device tunnel must be IKEv2, not %s", k.text(n))
	}
	if k.isDevice() && k.root.child("PluginProfile") != nil {
		k.report(k.root.child("PluginProfile"), nil, "a device tunnel must be IKEv2, not an app's")
	}
}

func checkDeviceMethod(k *check) {
	if !k.isDevice() || k.auth == nil {
		return
	}
	if n := k.auth.child("UserMethod"); n != nil {
		k.report(n, nil, "a device tunnel has no user")
	} else if m := k.auth.child("MachineMethod"); m != nil && !k.is(m, "Certificate") {
		k.reportValue(m, nil, "a device tunnel uses the computer's Certificate, not %s", k.text(m))
	}
}

func checkDeviceForce(k *check) {
	if k.isDevice() && k.forces() {
		k.reportValue(k.native.child("RoutingPolicyType"), nil, "a device tunnel can't be a force tunnel")
	}
}

func checkDeviceFilters(k *check) {
	if k.isDevice() && len(k.filters) > 0 && k.Windows.or() < Windows10v2004 {
		k.report(k.filters[0], nil, "before Windows 10 2004 nothing from inside reaches a device tunnel with filters")
	}
}

func checkDeviceRoutes(k *check) {
	if !k.isDevice() {
		return
	}
	for _, r := range k.routes {
		if p, ok := r.network, r.valid; ok && p.Bits() < 16 && !r.excluded {
			k.report(r.Node, nil, "%v is more than servers that are needed before logon", p)
		}
	}
}

func checkLockDown(k *check) {
	if n := k.root.child("LockDown"); k.isTrue(n) {
		k.report(n, nil, "nothing but this VPN can be used")
	}
}

func checkLockDownMethod(k *check) {
	if !k.isTrue(k.root.child("LockDown")) || k.native == nil {
		return
	}
	if k.protocol() != "IKEv2" || !k.is(k.auth.child("MachineMethod"), "Certificate") {
		k.report(k.native, nil, "LockDown needs NativeProtocolType IKEv2 and MachineMethod Certificate")
	}
}

func checkDeviceLockDown(k *check) {
	if n := k.root.child("LockDown"); k.isTrue(n) && k.isDevice() {
		k.report(n, nil, "there are both DeviceTunnel and LockDown")
	}
}

func checkMachineWithout(k *check) {
	if m := k.auth.child("MachineMethod"); k.is(m, "Certificate") && !k.isDevice() && !k.isTrue(k.root.child("LockDown")) && k.auth.child("UserMethod") == nil {
		k.report(m, nil, "MachineMethod Certificate without <DeviceTunnel> connects only after logon")
	}
}

// besideRules are about profiles that are on one computer together. They need
// Checker.Beside.
func besideRules() []Rule {
	return []Rule{
		{
			ID: "AOV620", Severity: Error, Title: "Two tunnels register their addresses in DNS",
			Why:    "RegisterDNS in both the user and the device tunnel has them overwrite each other's record, so that the client is found at one address, then at the other.",
			Remedy: "Keep RegisterDNS in the device tunnel, or in the one that management goes through.",
			run:    checkRegisterTwice,
		},
		{
			ID: "AOV621", Severity: Error, Title: "Both tunnels have DNS rules",
			Why:    "Rules of the Name Resolution Policy Table in both the device and the user tunnel aren't supported: those of one are lost.",
			Remedy: "Keep DomainNameInformation in the user tunnel.",
			run:    checkNamesTwice,
		},
		{
			ID: "AOV622", Severity: Warning, Title: "Two tunnels have routes to the same network",
			Why:    "Of two routes to one network the longer prefix wins, then the lower metric, so that the user's traffic goes through the device tunnel, or changes between them.",
			Remedy: "Give the route of the user tunnel a Metric, or the device tunnel smaller networks.",
			run:    checkRoutesTwice,
		},
		{
			ID: "AOV623", Severity: Error, Title: "Two profiles are always on",
			Why:    "One profile of a user can connect by itself. Windows takes the one that came last.",
			Remedy: "Set AlwaysOn in one of them. A device tunnel doesn't count.",
			run:    checkAlwaysOnTwice,
		},
		{
			ID: "AOV624", Severity: Error, Title: "There are two device tunnels",
			Why:    "A computer has one. What is left of an old one keeps a new one from being made on Windows 11.",
			Remedy: "Remove one.",
			run:    checkDeviceTwice,
		},
		{
			ID: "AOV625", Severity: Info, Title: "The device tunnel keeps some of the user's traffic",
			Why:    "Of two routes the more specific one wins: what the device tunnel has a smaller network for goes through it, even when the user tunnel is up, with the rights and the accounting of the computer.",
			Remedy: "Nothing, if that is meant; else give the user tunnel the same network with a lower Metric.",
			run:    checkMoreSpecific,
		},
	}
}

func checkMoreSpecific(k *check) {
	if len(k.Beside) == 0 || k.isDevice() {
		return
	}
	mine := make(map[netip.Prefix]*Node, len(k.routes))
	for _, r := range k.routes {
		if r.valid && !r.excluded {
			mine[r.network.Masked()] = r.Node
		}
	}
	k.beside(func(o *check) {
		if !o.isDevice() {
			return
		}
		for _, r := range o.routes {
			if !r.valid || r.excluded {
				continue
			}
			for bits := r.network.Bits() - 1; bits >= 0; bits-- {
				wider := netip.PrefixFrom(r.network.Addr(), bits).Masked()
				if n := mine[wider]; n != nil {
					k.report(n, nil, "the device tunnel has a Route to %v, which is in %v", r.network.Masked(), wider)
					return // once is enough
				}
			}
		}
	})
}

// beside calls f for every other profile on the same computer.
func (k *check) beside(f func(o *check)) {
	if k.root == nil {
		return
	}
	for _, d := range k.Beside {
		if o := newCheck(k.Checker, d); o.root != nil && d != k.doc {
			f(o)
		}
	}
}

func checkRegisterTwice(k *check) {
	k.beside(func(o *check) {
		if n := k.root.child("RegisterDNS"); k.isTrue(n) && o.isTrue(o.root.child("RegisterDNS")) {
			k.report(n, nil, "another profile registers its address in DNS too")
		}
	})
}

func checkNamesTwice(k *check) {
	k.beside(func(o *check) {
		if len(k.names) > 0 && len(o.names) > 0 && k.isDevice() != o.isDevice() {
			k.report(k.names[0], nil, "the device tunnel and the user tunnel both have DNS rules")
		}
	})
}

func checkRoutesTwice(k *check) {
	k.beside(func(o *check) {
		theirs := make(map[netip.Prefix]bool, len(o.routes))
		for _, r := range o.routes {
			if p, ok := r.network, r.valid; ok && !r.excluded {
				theirs[p.Masked()] = true
			}
		}
		for _, r := range k.routes {
			if p, ok := r.network, r.valid; ok && theirs[p.Masked()] && !r.excluded {
				k.report(r.Node, nil, "another profile has a Route to %v too", p.Masked())
			}
		}
	})
}

func checkAlwaysOnTwice(k *check) {
	k.beside(func(o *check) {
		if n := k.root.child("AlwaysOn"); k.isTrue(n) && o.isTrue(o.root.child("AlwaysOn")) && !k.isDevice() && !o.isDevice() {
			k.report(n, nil, "another profile is always on too")
		}
	})
}

func checkDeviceTwice(k *check) {
	k.beside(func(o *check) {
		if k.isDevice() && o.isDevice() {
			k.report(k.root.child("DeviceTunnel"), nil, "another profile is a device tunnel too")
		}
	})
}
