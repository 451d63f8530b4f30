package geo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// saved is the state of a Health as it outlives a restart.
type saved struct {
	Version int         `json:"version"`
	At      time.Time   `json:"at"`
	Sites   []savedSite `json:"sites"`
}

type savedSite struct {
	Name     string         `json:"name"`
	Away     bool           `json:"away,omitempty"`
	Admin    Admin          `json:"admin,omitempty"`
	Until    time.Time      `json:"until,omitzero"`
	Gateways []savedGateway `json:"gateways"`
}

type savedGateway struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Cause string `json:"cause,omitempty"`
}

const savedVersion = 1

// Save returns the state for [Health.Restore], as JSON.
func (h *Health) Save() ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := saved{Version: savedVersion, At: time.Now().UTC()}
	for _, r := range h.sites {
		n := savedSite{Name: r.Name, Away: r.away, Admin: r.admin, Until: r.until}
		for _, g := range r.gateways {
			n.Gateways = append(n.Gateways, savedGateway{g.Name, g.State, g.Cause})
		}
		s.Sites = append(s.Sites, n)
	}
	return json.Marshal(s)
}

// Restore takes over what [Health.Save] has returned, for the sites and gateways
// that are there and have not been asked yet. What an administrator wanted is
// taken over however old it is, unless its time is over; what the checks said
// if it is at most maxAge old. Of state from the future only the former is taken
// over, and an error says so: the clock was wrong then or is now. Times go on
// from the restart.
func (h *Health) Restore(data []byte, maxAge time.Duration) error {
	var s saved
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return fmt.Errorf("geo: saved state: %w", err)
	}
	if s.Version != savedVersion {
		return fmt.Errorf("geo: saved state has version %d, not %d", s.Version, savedVersion)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	age := now.Round(0).Sub(s.At)
	for _, n := range s.Sites {
		if n.Admin > AdminDown {
			return errors.New("geo: saved state is damaged")
		}
	}
	for _, n := range s.Sites {
		r := h.byName[n.Name]
		if r == nil {
			continue
		}
		if r.admin == AdminNone && (n.Until.IsZero() || n.Until.After(now)) {
			r.admin, r.until = n.Admin, n.Until
		}
		if age >= 0 && age <= maxAge {
			r.restore(n, now)
		}
	}
	h.publish(now)
	if age < 0 {
		return fmt.Errorf("geo: saved state is of %s, which is yet to come; only what administrators wanted counts of it", s.At.Format(time.RFC3339))
	}
	return nil
}

func (s *siteHealth) restore(n savedSite, now time.Time) {
	for _, g := range n.Gateways {
		for i := range s.gateways {
			if o := &s.gateways[i]; o.Name == g.Name && o.State == Unknown && g.State <= Down {
				o.State, o.Cause, o.Since = g.State, g.Cause, now
			}
		}
	}
	if n.Away && s.well != Up {
		s.away, s.downSince = true, now
	}
}
