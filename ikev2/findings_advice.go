package ikev2

// What administrators of Windows are told to do. The commands stand here once,
// for findings and for the documentation.

// EnableServerFragmentation has RRAS announce IKE fragmentation (RFC 7383). It
// takes Windows Server 1803, 2019 or later; the restart ends all tunnels.
const EnableServerFragmentation = `New-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\RemoteAccess\Parameters\Ikev2\' -Name EnableServerFragmentation -PropertyType DWORD -Value 1 -Force`

// RestartRRAS makes RRAS read its settings anew. It ends all tunnels.
const RestartRRAS = `Restart-Service RemoteAccess -Force`

// Windows' other settings that findings speak of.
const (
	showServerFragmentation = `Get-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\RemoteAccess\Parameters\Ikev2\' -Name EnableServerFragmentation`
	dropCertRequests        = `New-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\RasMan\IKEv2\' -Name DisableCertReqPayload -PropertyType DWORD -Value 1 -Force`
	raiseInitialQuery       = `New-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\IKEEXT\Parameters\' -Name IkeNumEstablishedForInitialQuery -PropertyType DWORD -Value 50000 -Force`
	restartIKEEXT           = `Restart-Service IKEEXT -Force`
	showIKEPorts            = `Get-NetUDPEndpoint -LocalPort 500, 4500`
	showServices            = `Get-Service RemoteAccess, IKEEXT`
	allowIKE                = `New-NetFirewallRule -DisplayName 'IKEv2 (UDP 500, 4500)' -Direction Inbound -Protocol UDP -LocalPort 500, 4500 -Action Allow`
	showPolicyServer        = `Get-VpnServerConfiguration | Format-List`
	showPolicyClient        = `Get-VpnConnection -AllUserConnection | Format-List Name, ServerAddress, TunnelType, IPsecCustomPolicy`
	showRejections          = `Get-WinEvent -FilterHashtable @{LogName='Security'; Id=6273} -MaxEvents 10 | Format-List TimeCreated, Message`
	showRasErrors           = `Get-WinEvent -FilterHashtable @{LogName='Application'; ProviderName='RasClient'} -MaxEvents 10 | Format-List TimeCreated, Message`
	showMachineCerts        = `Get-ChildItem Cert:\LocalMachine\My | Format-List Subject, Issuer, NotAfter, EnhancedKeyUsageList`
	testGateway             = `aovlb probe ikev2 HOST`
	testPath                = `aovlb mtu HOST`
	checkBalancer           = `aovlb status`
)

func adviseServerFragmentation() Advice {
	return Advice{OnGateway, "Let RRAS announce IKE fragmentation, so that large messages are sent in pieces that no router has to cut (Windows Server 2019 or later; the restart ends all tunnels).", []string{EnableServerFragmentation, RestartRRAS}}
}

func adviseClientFragmentation() Advice {
	return Advice{OnClient, "Windows announces IKE fragmentation from version 1803 on: update older clients. With it on both sides, expect datagrams of some 500 to 600 octets from Windows, and none over 1280.", nil}
}

func adviseSmallerMessages() Advice {
	return Advice{OnClient, "If fragmentation can't be had, make IKE_AUTH smaller: leave out the list of trusted roots (Windows 10 with the updates of January 2018 or later), and use certificates with short chains and ECC or RSA-2048 keys.", []string{dropCertRequests, `Restart-Service RasMan -Force`}}
}

func adviseLetFragmentsPass() Advice {
	return Advice{OnNetwork, "Or let IP fragments of UDP 4500 pass: firewalls, NAT routers and balancers that don't put them together drop all but the first, which alone has ports.", nil}
}

func advisePorts(ports string) Advice {
	return Advice{OnNetwork, "Let UDP " + ports + " pass to the gateways in both directions: in the network of the client, at its provider, and at your own firewall. Where a guest network blocks it, only SSTP (TCP 443) helps.", nil}
}

func adviseListening() Advice {
	return Advice{OnGateway, "See whether the gateway serves, and lets UDP 500 and 4500 in.", []string{showServices, showIKEPorts, allowIKE}}
}

func adviseThrottle() Advice {
	return Advice{OnGateway, "If many clients come from one address, as from behind a balancer that puts its own in place of theirs, have IKEEXT accept more of them; and better, let gateways see the clients' own addresses.", []string{raiseInitialQuery, restartIKEEXT}}
}

func adviseProbe() Advice {
	return Advice{OnClient, "Ask the gateway from here, on both ports.", []string{testGateway, testGateway + ":4500"}}
}
