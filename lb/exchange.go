package lb

// MaxExchanges bounds the requests that [Exchanges] keeps: as many as RADIUS
// has identifiers.
const MaxExchanges = 256

// Exchanges keeps, of one flow, the requests that wait for their answers. An
// engine needs one for each flow whose Verdicts have an Exchange: there many
// clients share the flow, and go to different backends, so that neither the
// flow's backend nor its last datagram says whose answer came.
//
// It grows with the requests that wait at once, to [MaxExchanges] at most; then
// the latest take the place of older ones. The zero Exchanges is ready for use.
// It isn't safe for concurrent use: it belongs under the lock of its flow.
type Exchanges struct {
	// A power of two in number; a request stands at its Exchange modulo that.
	slots []exchange
}

type exchange struct {
	number uint16 // zero: empty
	done   bool   // answered
	why    Why
	member ID
	keys   [MaxKeys]Key
	scope  Key
}

// Repeats returns where the same request went before, if v repeats one: its
// Exchange and Keys are equal. A server takes a repetition for such only if it
// has seen the original. If that backend may not have clients any more
// according to view, Repeats returns nil, as it does for a new request; the
// [Balancer] then decides.
func (x *Exchanges) Repeats(v *Verdict, view *View) (*Member, Why) {
	e := x.find(v.Exchange)
	if e == nil || e.keys != v.Keys {
		return nil, 0
	}
	return view.usable(e.member), e.why
}

// Sent records that the request of v went to backend m, and why it did. It
// replaces a request with the same Exchange. A Verdict without an Exchange isn't
// recorded.
func (x *Exchanges) Sent(v *Verdict, m *Member, why Why) {
	if v.Exchange == 0 {
		return
	}
	e := x.slot(v.Exchange)
	*e = exchange{number: v.Exchange, why: why, member: m.ID, keys: v.Keys, scope: v.Scope}
}

// Answered returns the names to be recorded because backend m has sent answer
// a, for [Balancer.Answered]: those of the request, then those of the answer, of
// which the first is taken within the request's Scope. A further answer to a request
// gives the same names again. If the request has gone to another backend since, or
// its Exchange is that of another one, only the first name of the answer is given:
// it is m's, and the client may go on with it. It reports false if nothing may be
// recorded.
func (x *Exchanges) Answered(a *Verdict, m *Member) (keys [2 * MaxKeys]Key, why Why, ok bool) {
	e := x.find(a.Exchange)
	switch {
	case e == nil:
		return keys, 0, false
	case e.member != m.ID && a.Keys[0].IsZero():
		return keys, 0, false
	case e.member != m.ID:
		keys[MaxKeys] = a.Keys[0].In(e.scope)
		return keys, e.why, true
	}
	e.done = true
	copy(keys[:], e.keys[:])
	copy(keys[MaxKeys:], a.Keys[:])
	keys[MaxKeys] = keys[MaxKeys].In(e.scope)
	return keys, e.why, true
}

// Waiting returns how many requests wait for an answer.
func (x *Exchanges) Waiting() int {
	n := 0
	for i := range x.slots {
		if e := &x.slots[i]; e.number != 0 && !e.done {
			n++
		}
	}
	return n
}

func (x *Exchanges) find(number uint16) *exchange {
	if number == 0 || len(x.slots) == 0 {
		return nil
	}
	e := &x.slots[int(number)&(len(x.slots)-1)]
	if e.number != number {
		return nil
	}
	return e
}

// slot returns the place for a request, and makes room if that is taken by
// another one that waits.
func (x *Exchanges) slot(number uint16) *exchange {
	if len(x.slots) == 0 {
		x.slots = make([]exchange, 1)
	}
	for {
		e := &x.slots[int(number)&(len(x.slots)-1)]
		if e.number == 0 || e.number == number || e.done || len(x.slots) >= MaxExchanges {
			return e
		}
		// What differs modulo n differs modulo 2n too, so nothing collides.
		more := make([]exchange, 2*len(x.slots))
		for _, old := range x.slots {
			if old.number != 0 {
				more[int(old.number)&(len(more)-1)] = old
			}
		}
		x.slots = more
	}
}
