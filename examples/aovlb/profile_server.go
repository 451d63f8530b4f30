package main

import (
	"flag"

	"github.com/aovlb/aovlb/profilexml"
)

// npsOptions are the flags for --to nps.
type npsOptions struct{ setup profilexml.NPSSetup }

func (o *npsOptions) flags(fs *flag.FlagSet) {
	fs.BoolVar(&o.setup.MessageAuthenticator, "nps-message-authenticator", false, "nps: demand a Message-Authenticator of gateways and balancers (CVE-2024-3596), which all of them must send")
	fs.BoolVar(&o.setup.IgnoreNoRevocation, "nps-no-revocation", false, "nps: take certificates that name no revocation list, such as those of conditional access by Entra ID")
}

func (o *npsOptions) script() (string, error) {
	if o.setup == (profilexml.NPSSetup{}) {
		return "", &usageError{"--to nps needs --nps-message-authenticator or --nps-no-revocation"}
	}
	return o.setup.Script()
}

// requestOptions are the flags for --to request.
type requestOptions struct {
	holder        string
	names, usages list
	request       profilexml.CertificateRequest
}

func (o *requestOptions) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.holder, "for", "gateway", "request: `whose` certificate it is: gateway, device, user or controller (a domain controller); those of NPS are made by aovlb nps request")
	fs.Var(&o.names, "request-name", "request: a `name` of a gateway, device or controller, or the user principal name; may be repeated")
	fs.Var(&o.usages, "request-usage", "request: a further usage (`OID`) that profiles may filter by; may be repeated")
	fs.StringVar(&o.request.Template, "request-template", "", "request: the `name` of the template at AD CS")
	fs.IntVar(&o.request.Bits, "request-bits", 0, "request: the length of the RSA key in `bits`; 0 is 2048")
	fs.BoolVar(&o.request.TPM, "request-tpm", false, "request: make the key in the TPM")
}

func (o *requestOptions) inf() (string, error) {
	var err error
	if o.request.For, err = profilexml.ParseHolder(o.holder); err != nil {
		return "", &usageError{"--for: " + err.Error()}
	}
	if len(o.names) == 0 {
		return "", &usageError{"--to request needs --request-name"}
	}
	o.request.Names, o.request.Usages = o.names, o.usages
	return o.request.INF()
}
