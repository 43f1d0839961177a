package clock

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestMutexUnderVirtualTime: time passes while somebody waits for the lock, and
// it is handed on in the order of arrival.
func TestMutexUnderVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Mutex
		var got []int
		m.Lock()
		for i := range 3 {
			go func() {
				m.Lock()
				defer m.Unlock()
				time.Sleep(time.Hour)
				got = append(got, i)
			}()
			synctest.Wait()
		}
		if m.TryLock() {
			t.Error("taken twice")
		}
		time.Sleep(time.Hour)
		m.Unlock()
		time.Sleep(4 * time.Hour)
		if !m.TryLock() {
			t.Fatal("not free at the end")
		}
		if !slices.Equal(got, []int{0, 1, 2}) {
			t.Errorf("order %v", got)
		}
	})
}
