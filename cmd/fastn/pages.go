package main

// pageLimit is how many messages a page of a list may have: the most that the
// daemon gives.
const pageLimit = 1000

// allPages calls each for what next gives, page after page, until there are no
// more or each is false.
func allPages[T any](each func(T) bool, next func(after int64) (list []T, cursor int64, more bool, err error)) error {
	for after, more := int64(0), true; more; {
		var list []T
		var err error
		if list, after, more, err = next(after); err != nil {
			return err
		}
		for _, one := range list {
			if !each(one) {
				return nil
			}
		}
	}
	return nil
}

// fetch runs a verb and decodes its answer.
func fetch[T any](a *app, verb string, args any) (out T, err error) {
	raw, err := a.verb(verb, args)
	if err == nil {
		err = decode(raw, &out)
	}
	return out, err
}
