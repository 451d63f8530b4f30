package kemp

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// Render writes the PowerShell for a deployment, for administrators who keep a
// LoadMaster themselves.
func (d *Driver) Render(ctx context.Context, dep *plugins.Deployment) ([]plugins.File, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	c, s, _ := d.setUp.Peek()
	s = d.asked(s)
	list := check(dep, c.Site, s)
	if dep == nil || plugins.HasError(list) {
		return nil, fmt.Errorf("%w for a LoadMaster", plugins.ErrInvalid)
	}
	r := &renderer{site: dep.Served(siteOf(c, dep)), geo: dep.Geo, owner: c.Owner, settings: s}
	w := &writer{renderer: r, services: r.services()}
	w.all(list)
	return []plugins.File{{
		Name: "aovlb-kemp.ps1", Summary: "PowerShell for Kemp's module: .\\aovlb-kemp.ps1 -LoadMaster lm.example.com", Content: []byte(w.out.String()),
	}}, nil
}

// writer writes a script.
type writer struct {
	*renderer
	services []service
	out      strings.Builder
}

func (w *writer) line(format string, args ...any) { fmt.Fprintf(&w.out, format+"\n", args...) }

func (w *writer) all(list []plugins.Diagnostic) {
	w.line("# Always On VPN on a Kemp LoadMaster: what an administrator would otherwise click.")
	w.line("# It needs Kemp's PowerShell module (Kemp.LoadBalancer.Powershell 7.2.60 or later), and the API enabled at the")
	w.line("# LoadMaster: Certificates & Security, Remote Access. Each step is put into effect and saved at once.")
	for _, g := range list {
		if g.Severity == plugins.SeverityWarning {
			w.line("# Beware: %s", oneLine(strings.TrimPrefix(g.String(), string(g.Severity)+": ")))
		}
	}
	w.line("param(")
	w.line("    [Parameter(Mandatory)][string] $LoadMaster,")
	w.line("    [int] $Port = 443,")
	w.line("    [pscredential] $Credential = (Get-Credential -Message 'A user of the LoadMaster')")
	w.line(")")
	w.line("$ErrorActionPreference = 'Stop'")
	w.line("Import-Module Kemp.LoadBalancer.Powershell")
	w.line("function Confirm-Step($answer) { if ($answer.ReturnCode -ne 200) { throw $answer.Response } }")
	w.line("Confirm-Step (Initialize-LmConnectionParameters -Address $LoadMaster -LBPort $Port -Credential $Credential)")
	if w.needsCalls() {
		w.calls()
	}
	w.certificates()
	for i := range w.services {
		w.service(&w.services[i])
	}
	w.acme()
	for i := range w.services {
		w.ends(&w.services[i])
		w.servers(&w.services[i])
	}
	w.names()
}

// names adds names, their addresses, and whose clients these serve.
func (w *writer) names() {
	for _, o := range w.nameObjects() {
		part := strings.Fields(o.Name)
		call := fmt.Sprintf("fqdn = %s", quote(part[0]))
		if len(part) > 1 {
			call += fmt.Sprintf("; ip = %s", quote(part[1]))
		}
		step := func(command, more string) {
			w.line("$null = Invoke-LoadMaster @{ cmd = '%s'; %s%s }", command, call, more)
		}
		more, ask := "", ""
		for _, f := range o.Fields {
			switch f.Name {
			case "CheckerAddr":
				ask += "; checkerip = " + quote(f.Value)
			case "CheckerPort":
				ask += "; port = " + quote(f.Value)
			default:
				more += "; " + f.Name + " = " + quote(f.Value)
			}
		}
		switch o.Kind {
		case kindName:
			w.line("")
			w.line("# The name %s: TTL in seconds; rr takes turns, wrr by weight, fw the greatest weight that is up, lb by location, prx the nearest.", part[0])
			w.line("# GEO must be enabled before (Global Balancing), and the parent zone delegate the name to the LoadMaster.")
			step("addfqdn", "")
			step("modfqdn", more)
		case kindAddress:
			step("addmap", "")
			step("modmap", more)
			if ask != "" {
				step("changecheckeraddr", ask)
			}
		case kindPlace:
			step("addcountry", fmt.Sprintf("; countrycode = %s; iscontinent = %s", quote(part[3]), quote(map[bool]string{true: "yes", false: "no"}[part[2] == "continent"])))
		}
	}
}

// needsCalls reports whether something is needed that the module has no command for.
func (w *writer) needsCalls() bool {
	return w.geo != nil || slices.ContainsFunc(w.services, func(s service) bool { return s.group.Limits.MaxClients > 0 || s.listener.TLS.Terminated() }) ||
		slices.ContainsFunc(w.site.Certificates, func(c plugins.Certificate) bool { return c.ACME != nil })
}

func (w *writer) calls() {
	w.line("")
	w.line("# A call of the API itself, for what the module has no command for.")
	w.line("function Invoke-LoadMaster([hashtable] $Call) {")
	w.line("    $login = @{ apiuser = $Credential.UserName; apipass = $Credential.GetNetworkCredential().Password }")
	w.line("    $body = ConvertTo-Json ($login + $Call)")
	w.line("    $answer = Invoke-RestMethod -Method Post -Uri \"https://${LoadMaster}:$Port/accessv2\" -ContentType 'application/json' -Body $body")
	w.line("    if ($answer.code -ne 200) { throw $answer.message }")
	w.line("    $answer")
	w.line("}")
}

// certificates uploads those that come from files.
func (w *writer) certificates() {
	for i := range w.site.Certificates {
		c := &w.site.Certificates[i]
		if c.ACME != nil {
			continue
		}
		w.line("")
		w.line("# Certificate %s. Gateways of pool %s must know its SHA-256 before clients are shown it.", c.Name, c.Pool)
		if c.KeyFile == "" || c.KeyFile == c.CertFile {
			w.line("Confirm-Step (New-TlsCertificate -Name %s -Path %s)", quote(w.certificateName(c)), quote(c.CertFile))
			continue
		}
		w.line("# The LoadMaster takes the certificate and its key as one file.")
		w.line("$bundle = New-TemporaryFile")
		w.line("try {")
		w.line("    Get-Content %s, %s | Set-Content $bundle", quote(c.CertFile), quote(c.KeyFile))
		w.line("    Confirm-Step (New-TlsCertificate -Name %s -Path $bundle.FullName)", quote(w.certificateName(c)))
		w.line("} finally { Remove-Item $bundle }")
	}
}

// acme has the LoadMaster get certificates.
func (w *writer) acme() {
	for i := range w.site.Certificates {
		c := &w.site.Certificates[i]
		s := w.prover(w.services, c)
		if c.ACME == nil || s == nil {
			continue
		}
		size := "2048"
		if c.ACME.KeyType == plugins.KeyRSA4096 {
			size = "4096"
		}
		w.line("")
		w.line("# Certificate %s from the CA of the LoadMaster's ACME account, which must be registered there before.", c.Name)
		w.line("# The CA comes to port 80 of %v.", s.address().Addr())
		w.line("$vs = (Get-AdcVirtualService).Data.VS | Where-Object NickName -eq %s", quote(s.nick))
		w.line("$null = Invoke-LoadMaster @{ cmd = 'addacmecert'; cert = %s; cn = %s; vid = \"$($vs.Index)\"; key_size = '%s'; acmetype = '%s' }",
			quote(w.certificateName(c)), quote(c.ACME.Host), size, letsEncrypt)
	}
}

// reasons say what a field is for, where its name doesn't.
var reasons = map[string]string{
	"ForceL7":        "port following and persistence are of layer 7",
	"Transparent":    "whether backends see the clients' own addresses; then they must route through the LoadMaster",
	"Persist":        "clients are known by their addresses",
	"PersistTimeout": "seconds",
	"Idletime":       "seconds",
	"CheckUrl":       "what clients of SSTP ask for",
	"CheckCodes":     "2xx count as good too, whatever is said here",
	"CheckUseGet":    "0 is HEAD, 1 is GET",
	"CheckType":      "UDP is only pinged",
	"RefreshPersist": "what a client sends keeps it remembered",
	"PortFollow":     "a client's other port leads to the same backend",
}

// service makes a virtual service.
func (w *writer) service(s *service) {
	w.line("")
	w.line("# Listener %s of group %s: %s.", s.listener.Name, s.group.Name, s.listener.Protocol)
	w.line("$service = @{")
	w.line("    VirtualService = %s; VSPort = %d; VSProtocol = %s", quote(s.address().Addr().String()), s.address().Port(), quote(s.network()))
	w.line("    VSType             = 'gen'")
	for _, f := range w.fields(s) {
		switch {
		case f.Name == "MaxConnsLimit", f.Name == "Persist" && f.Value == "none", f.Value == "":
		case f.Name == "FollowVSID":
			for i := range w.services {
				if o := &w.services[i]; o.name() == f.Value {
					w.field(s, "PortFollow", fmt.Sprint(int(o.address().Port())))
				}
			}
		default:
			w.field(s, f.Name, f.Value)
		}
	}
	w.line("}")
	w.line("Confirm-Step (New-AdcVirtualService @service)")
	if n := s.group.Limits.MaxClients; n > 0 {
		w.call(s, "MaxConnsLimit", fmt.Sprint(n))
	}
}

// call sets a field of a virtual service that the module has no parameter for.
func (w *writer) call(s *service, name, value string) {
	w.line("$null = Invoke-LoadMaster @{ cmd = 'modvs'; vs = %s; port = '%d'; prot = '%s'; %s = '%s' }",
		quote(s.address().Addr().String()), s.address().Port(), s.network(), name, value)
}

// field writes one field of a virtual service.
func (w *writer) field(s *service, name, value string) {
	reason := reasons[name]
	if name == "CheckType" && s.network() != "udp" || name == "CheckUrl" && value != plugins.SSTPPath {
		reason = ""
	}
	if reason != "" {
		reason = "  # " + reason
	}
	name = strings.NewReplacer("NickName", "Nickname", "CheckUse1.1", "CheckUse1_1").Replace(name)
	switch {
	case value == "Y" || value == "N":
		value = map[string]string{"Y": "$true", "N": "$false"}[value]
	case strings.ContainsFunc(value, func(r rune) bool { return r < '0' || r > '9' }) || name == "CheckCodes":
		value = quote(value)
	}
	w.line("    %-18s = %s%s", name, value, reason)
}

// ends has a virtual service end TLS.
func (w *writer) ends(s *service) {
	if !s.listener.TLS.Terminated() {
		return
	}
	w.line("")
	w.line("# %s ends TLS.", s.nick)
	w.line("$tls = @{")
	w.line("    VirtualService = %s; VSPort = %d; VSProtocol = %s", quote(s.address().Addr().String()), s.address().Port(), quote(s.network()))
	for _, f := range w.tls(s) {
		if f.Value != "" && f.Name != "TlsType" {
			w.field(s, f.Name, f.Value)
		}
	}
	w.line("}")
	w.line("Confirm-Step (Set-AdcVirtualService @tls)")
	refused := plugins.Object{Fields: w.tls(s)}
	w.line("# A bit for each version that is refused: 1 SSLv3, 2 TLS 1.0, 4 TLS 1.1, 8 TLS 1.2.")
	w.call(s, "TlsType", refused.Get("TlsType"))
}

// servers adds the backends to a virtual service.
func (w *writer) servers(s *service) {
	w.line("")
	w.line("# The backends of %s.", s.nick)
	for i := range s.pool.Backends {
		b := &s.pool.Backends[i]
		at, _ := s.server(b)
		o, ok := w.serverObject(s, b)
		if !ok {
			w.line("# %s, %v, is disabled, so it isn't there.", b.Name, b.Address)
			continue
		}
		more := ""
		if n := o.Get("Limit"); n != "0" {
			more += " -Limit " + n
		}
		if o.Get("Enable") != "Y" {
			more += " -Enable $false"
		}
		if w.settings.RemoteServers {
			more += " -Non_Local $true"
		}
		w.line("Confirm-Step (New-AdcRealServer -VirtualService %s -VSPort %d -VSProtocol %s -RealServer %s -RealServerPort %d -Weight %s%s) # %s",
			quote(s.address().Addr().String()), s.address().Port(), s.network(), quote(at.Addr().String()), at.Port(), o.Get("Weight"), more, b.Name)
	}
}

// quote writes a text so that PowerShell reads it as it is.
func quote(s string) string {
	// PowerShell takes typographic quotes for quotes, too.
	return "'" + strings.NewReplacer("'", "''", "‘", "‘‘", "’", "’’", "‚", "‚‚", "‛", "‛‛", "\n", " ", "\r", " ", "\x00", "").Replace(s) + "'"
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
