package node

import (
	"container/heap"
	"time"

	"causeway/crypto/session"
)

const (
	idleEvery = 2 * time.Second      // a member without sessions is looked at so often, until it can be forgotten
	tickGrain = 5 * time.Millisecond // between two ticks of a member
)

// dueMembers is all members, the one whose tick is next first.
type dueMembers []*member

func (d dueMembers) Len() int           { return len(d) }
func (d dueMembers) Less(i, j int) bool { return d[i].dueAt.Before(d[j].dueAt) }
func (d dueMembers) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

// Push is for container/heap.
func (d *dueMembers) Push(m any) {
	m.(*member).place = len(*d)
	*d = append(*d, m.(*member))
}

// Pop is for container/heap.
func (d *dueMembers) Pop() any {
	last := len(*d) - 1
	m := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return m
}

// scheduleLocked sets when the member's next tick is. A member that is forgotten has
// none.
func (s *sessions) scheduleLocked(m *member, now time.Time) {
	at := m.core.Deadline()
	if at.IsZero() {
		at = now.Add(idleEvery)
		if m.dueAt.After(now) && m.dueAt.Before(at) {
			at = m.dueAt // not put off by each event
		}
	}
	if !m.giveUpAt.IsZero() && m.giveUpAt.Before(at) {
		at = m.giveUpAt
	}
	if least := now.Add(tickGrain); at.Before(least) {
		at = least
	}
	switch {
	case s.members[m.address] != m || at.Equal(m.dueAt):
		return
	case m.dueAt.IsZero():
		m.dueAt = at
		heap.Push(&s.due, m)
	default:
		m.dueAt = at
		heap.Fix(&s.due, m.place)
	}
	if m.place == 0 {
		signal(s.wake)
	}
}

// keepSessions is the goroutine that has members tick.
func (n *Node) keepSessions() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-n.sessions.wake:
		case <-timer.C:
		case <-n.done:
			return
		}
		if next := n.tickSessions(time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// tickSessions has those members tick that are due, and returns when the next one
// is; zero: there is none.
func (n *Node) tickSessions(now time.Time) (next time.Time) {
	s := n.sessions
	n.in.mu.Lock()
	defer n.in.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.due) > 0 {
		m := s.due[0]
		if now.Before(m.dueAt) {
			return m.dueAt
		}
		if !m.giveUpAt.IsZero() && !now.Before(m.giveUpAt) {
			m.giveUpAt = time.Time{}
			m.core.GiveUp()
		}
		s.eventLocked(m, now, false, func(now time.Time, out *session.Actions) session.Drop {
			m.core.Tick(now, out)
			return session.DropNone
		})
		if m.users == 0 && m.core.Idle(now) {
			heap.Remove(&s.due, m.place)
			delete(s.members, m.address)
		}
	}
	return time.Time{}
}
