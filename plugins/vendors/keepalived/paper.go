package keepalived

import (
	"context"
	"fmt"
	"strings"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/ownfile"
)

// Render writes keepalived's file, the ruleset, the script, and the settings of the
// kernel, for administrators who keep the files themselves.
func (d *Driver) Render(ctx context.Context, dep *plugins.Deployment) ([]plugins.File, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if list := d.check(ctx, dep); plugins.HasError(list) || dep == nil {
		return nil, fmt.Errorf("%w for keepalived", plugins.ErrInvalid)
	}
	c, s, _ := d.setUp.Peek()
	s = s.usual()
	s.Main = s.File // what is rendered stands alone
	site := ownfile.Site(c, dep, nil)
	r := newRenderer(c, s, dep.Site(site), nil)
	conf := "# What keepalived 2.2 or later needs for Always On VPN. As it is, it can be /etc/keepalived/keepalived.conf; beside\n" +
		"# another file, leave out global_defs. Check it by\n#   keepalived -t -f keepalived.conf\n" +
		"# The deployment asks that clients be kept at one server for as long as persistence_timeout says, in seconds.\n"
	out := []plugins.File{{
		Name: "keepalived.conf", Summary: "for keepalived: put it into /etc/keepalived, check it by keepalived -t, then systemctl reload keepalived",
		Content: append([]byte(conf), body(r.blocks())...),
	}}
	if marks := r.ruleset(); marks != nil {
		out = append(out, plugins.File{
			Name: "marks.nft", Summary: "marks what belongs together, before keepalived is reloaded: nft -f marks.nft, and include it in /etc/nftables.conf",
			Content: writeMarks(c.Owner, site, marks),
		})
	}
	if r.usesScript() {
		out = append(out, plugins.File{
			Name: s.Script[strings.LastIndexByte(s.Script, '/')+1:], Summary: "asks gateways of SSTP: put it at " + s.Script + ", owned by root, mode 755; it needs curl",
			Content: writeScript(c.Owner, site),
		})
	}
	return append(out, plugins.File{
		Name: "sysctl.conf", Summary: "what the kernel must do: put it into /etc/sysctl.d, then sysctl --system", Content: []byte(sysctl(s)),
	}), nil
}

// sysctl are the settings of the kernel.
func sysctl(s Settings) string {
	out := `# What the kernel must do for IPVS, as /etc/sysctl.d/90-aovlb.conf. The module ip_vs must be loaded before:
#   echo ip_vs > /etc/modules-load.d/ip_vs.conf
# Clients of a gateway that is gone go to another one at once, rather than when their time is over.
net.ipv4.vs.expire_nodest_conn = 1
# Clients of a gateway that is drained stay.
net.ipv4.vs.expire_quiescent_template = 0
`
	if s.Method == MethodNAT {
		out += "# Packets go on to gateways, and their answers back through this machine.\nnet.ipv4.ip_forward = 1\nnet.ipv6.conf.all.forwarding = 1\n"
	}
	if s.VRRP != nil {
		out += "# Services may listen on the addresses that the other machine has now.\nnet.ipv4.ip_nonlocal_bind = 1\n"
	}
	return out
}
