package link

const childRole = "LINK_TEST_CHILD"

var children = map[string]func() int{}
