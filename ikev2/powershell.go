package ikev2

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// A ServerSetup is what PowerShell needs besides the policy to set up RRAS. The
// zero value leaves everything else as it is.
type ServerSetup struct {
	// SALifetime is how long a child SA lasts (-SALifeTimeSeconds), 5 minutes at
	// least; 0 leaves it.
	SALifetime time.Duration
	// MMSALifetime is how long an IKE SA lasts (-MMSALifeTimeSeconds), likewise.
	MMSALifetime time.Duration
	// Data is how many KiB a child SA carries before it is renewed
	// (-SADataSizeForRenegotiationKilobytes); 0 leaves it.
	Data uint64
	// NoRestart leaves out the restart of the service, without which the policy
	// isn't used. The restart ends all connections.
	NoRestart bool
}

// RecommendedSetup is the setup that goes with [EnhancedPolicy] and
// [HighSecurityPolicy].
func RecommendedSetup() ServerSetup {
	return ServerSetup{SALifetime: 8 * time.Hour, MMSALifetime: 24 * time.Hour, Data: 1024000}
}

// The bounds of lifetimes and data of RRAS (MS-RRASM, ROUTER_IKEv2_IF_CUSTOM_CONFIG0).
const (
	minLifetime = 300 * time.Second
	maxLifetime = 17279999 * time.Second
	minData     = 1024
)

func (o ServerSetup) check() error {
	var errs []error
	for _, x := range []struct {
		name string
		d    time.Duration
	}{{"SALifetime", o.SALifetime}, {"MMSALifetime", o.MMSALifetime}} {
		if x.d != 0 && (x.d < minLifetime || x.d > maxLifetime || x.d%time.Second != 0) {
			errs = append(errs, fmt.Errorf("ikev2: %s %v isn't whole seconds between %v and %v", x.name, x.d, minLifetime, maxLifetime))
		}
	}
	if o.Data != 0 && (o.Data < minData || o.Data > math.MaxUint32) {
		errs = append(errs, fmt.Errorf("ikev2: %d KiB for a child SA aren't between %d and %d", o.Data, minData, uint32(math.MaxUint32)))
	}
	return errors.Join(errs...)
}

// ServerPowerShell returns the script that gives an RRAS server the policy: to be
// run there as administrator. It fails if Check does.
func (c CustomPolicy) ServerPowerShell(o ServerSetup) (string, error) {
	args, err := c.parameters()
	if err != nil {
		return "", err
	}
	if err := o.check(); err != nil {
		return "", err
	}
	if o.SALifetime != 0 {
		args = append(args, fmt.Sprintf("-SALifeTimeSeconds %d", int(o.SALifetime.Seconds())))
	}
	if o.MMSALifetime != 0 {
		args = append(args, fmt.Sprintf("-MMSALifeTimeSeconds %d", int(o.MMSALifetime.Seconds())))
	}
	if o.Data != 0 {
		args = append(args, fmt.Sprintf("-SADataSizeForRenegotiationKilobytes %d", o.Data))
	}
	args = append([]string{"-CustomPolicy"}, args...)
	return invoke("Set-VpnServerConfiguration", append(args, "-PassThru")) + o.restart(), nil
}

// RevertServerPowerShell returns the script that takes a custom policy from an
// RRAS server again.
func RevertServerPowerShell(o ServerSetup) string {
	return invoke("Set-VpnServerConfiguration", []string{"-RevertToDefault", "-PassThru"}) + o.restart()
}

func (o ServerSetup) restart() string {
	if o.NoRestart {
		return ""
	}
	return "# This ends all connections.\nRestart-Service -Name RemoteAccess -PassThru\n"
}

// ClientPowerShell returns the script that gives a connection of a Windows client
// the policy. allUsers says that it is one of the computer's, as a device tunnel
// is: then the script has to be run as administrator, for a device tunnel as
// SYSTEM. A profile that was delivered by ProfileXML gets its policy there
// instead: see [CustomPolicy.CryptographySuite].
func (c CustomPolicy) ClientPowerShell(connection string, allUsers bool) (string, error) {
	args, err := c.parameters()
	if err != nil {
		return "", err
	}
	head, err := connectionArgs(connection, allUsers)
	if err != nil {
		return "", err
	}
	return invoke("Set-VpnConnectionIPsecConfiguration", append(append(head, args...), "-PassThru", "-Force")), nil
}

// RevertClientPowerShell returns the script that takes a custom policy from a
// connection again.
func RevertClientPowerShell(connection string, allUsers bool) (string, error) {
	head, err := connectionArgs(connection, allUsers)
	if err != nil {
		return "", err
	}
	return invoke("Set-VpnConnectionIPsecConfiguration", append(head, "-RevertToDefault", "-PassThru", "-Force")), nil
}

func connectionArgs(connection string, allUsers bool) ([]string, error) {
	name, err := QuotePowerShell(connection)
	if err != nil {
		return nil, fmt.Errorf("ikev2: connection name: %w", err)
	}
	if connection == "" || len(connection) > 256 {
		return nil, errors.New("ikev2: connection name: it is empty, or over 256 octets long")
	}
	args := []string{"-ConnectionName " + name}
	if allUsers {
		args = append(args, "-AllUserConnection")
	}
	return args, nil
}

// parameters returns the six settings as PowerShell has them. They are words from
// the table, so that they need no quotes.
func (c CustomPolicy) parameters() ([]string, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	n, err := c.Normalize()
	if err != nil {
		return nil, err
	}
	var args []string
	for _, s := range Settings() {
		args = append(args, fmt.Sprintf("-%v %s", s, n.Get(s)))
	}
	return args, nil
}

// invoke returns a command with one argument on each line.
func invoke(command string, args []string) string {
	return command + " `\n    " + strings.Join(args, " `\n    ") + "\n"
}

// QuotePowerShell returns s as a PowerShell string in which nothing is expanded.
// It fails if s holds a character that would end a line or that can't be seen,
// and so has no business in a name.
func QuotePowerShell(s string) (string, error) {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		switch r {
		case '\'', '‘', '’', '‚', '‛':
			// PowerShell takes every one of these for an end.
			b.WriteRune(r)
		case '\u2028', '\u2029', '\ufeff', '\ufffd':
			return "", fmt.Errorf("character %U can't be used", r)
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return "", fmt.Errorf("control character %U can't be used", r)
		}
		b.WriteRune(r)
	}
	b.WriteByte('\'')
	return b.String(), nil
}

// CryptographySuite returns the policy as the element of ProfileXML that goes
// into NativeProfile, with the indentation given. Its order is that in which
// Windows reads it back, so that Intune sees no difference. It fails if Check
// does, or if ProfileXML has no word for a value.
func (c CustomPolicy) CryptographySuite(indent string) (string, error) {
	if err := c.Check(); err != nil {
		return "", err
	}
	x, err := c.ProfileXML()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s<CryptographySuite>\n", indent)
	for _, s := range []Setting{
		SettingAuthenticationTransform, SettingCipherTransform, SettingPFSGroup, SettingDHGroup, SettingIntegrity, SettingEncryption,
	} {
		fmt.Fprintf(&b, "%s  <%v>%s</%v>\n", indent, s, x.Get(s), s)
	}
	fmt.Fprintf(&b, "%s</CryptographySuite>\n", indent)
	return b.String(), nil
}
