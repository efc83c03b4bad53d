// Package docs holds the pages for users and operators. It stands outside the straight line; its tests follow the user
// guide command by command on the real programs, so that no page promises what does not work.
package docs
