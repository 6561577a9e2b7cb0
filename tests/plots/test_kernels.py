"""The plot of kernels: one sheet with one scale."""

import numpy as np

import funcnn as fnn


def test_kernels_have_gaps_and_one_scale():
    kernel = np.arange(12.0).reshape(4, 3) - 5
    image = fnn.plot_kernels(kernel, columns=2).axes[0].images[0]
    sheet = np.ma.filled(image.get_array(), np.nan)
    assert sheet.shape == (5, 5)
    np.testing.assert_array_equal(sheet[:2, :2], kernel[:, 0].reshape(2, 2))
    np.testing.assert_array_equal(sheet[:2, 3:], kernel[:, 1].reshape(2, 2))
    assert np.isnan(sheet[2]).all()
    assert np.isnan(sheet[:, 2]).all()
    assert image.get_clim() == (-6, 6)
    convolution = kernel.reshape(2, 2, 1, 3)
    again = np.ma.filled(fnn.plot_kernels(convolution, columns=2).axes[0].images[0].get_array(), np.nan)
    np.testing.assert_array_equal(again, sheet)
