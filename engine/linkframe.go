package engine

import "causeway/engine/buf"

// linkFrame takes b, a frame of a neighbour that is no link control. This router
// announces nobody, so none can be for one of its nodes.
func (p *peer) linkFrame(b *buf.Buffer) { p.loop.drop(dropNoRoute, b) }
